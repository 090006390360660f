-- Which of some types cannot be the type of a column, such as record: no session can read their values from another.
SELECT format_type(oid, -1) FROM pg_catalog.pg_type WHERE oid = ANY (%(type_oids)s::oid[]) AND typtype = 'p'
