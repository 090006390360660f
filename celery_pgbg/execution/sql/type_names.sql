-- The names of some types, in the order of their OIDs' places, as this session can write them.
SELECT format_type(type_oid, -1) FROM unnest(%(type_oids)s::oid[]) WITH ORDINALITY AS wanted (type_oid, place) ORDER BY place
