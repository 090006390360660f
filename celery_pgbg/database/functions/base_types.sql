-- The types of a row's columns as a client sees them: a domain as the type below it. In and out: a row of
-- NULLs in binary form, which is the number of columns, then each one's type and a length of -1, four bytes each.
CREATE OR REPLACE FUNCTION celery_pgbg.base_types(column_types pg_catalog.bytea) RETURNS pg_catalog.bytea
LANGUAGE plpgsql STABLE STRICT
AS $$
#variable_conflict use_variable
DECLARE
    base_types pg_catalog.bytea := column_types;
    type_bytes pg_catalog.bytea;
    base_oid pg_catalog.oid;
BEGIN
    FOR place IN 5 .. pg_catalog.octet_length(column_types) BY 8 LOOP
        type_bytes := pg_catalog.substr(column_types, place, 4);
        LOOP
            SELECT typbasetype INTO base_oid FROM pg_catalog.pg_type
            WHERE typtype OPERATOR(pg_catalog.=) 'd' AND oid OPERATOR(pg_catalog.=)
                pg_catalog.concat('x', pg_catalog.encode(type_bytes, 'hex'))::bit(32)::bigint::pg_catalog.oid;
            EXIT WHEN NOT FOUND;
            type_bytes := pg_catalog.oidsend(base_oid);
        END LOOP;
        base_types := pg_catalog.overlay(base_types, type_bytes, place, 4);
    END LOOP;
    RETURN base_types;
END;
$$;
