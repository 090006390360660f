-- The type below a domain, or below a domain over a domain; any other type itself.
CREATE OR REPLACE FUNCTION celery_pgbg.base_type(type_oid oid) RETURNS oid
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH RECURSIVE layer AS (
        SELECT type_oid AS oid
        UNION ALL
        SELECT pg_type.typbasetype FROM layer JOIN pg_catalog.pg_type ON pg_type.oid = layer.oid
        WHERE pg_type.typtype = 'd'
    )
    SELECT layer.oid FROM layer JOIN pg_catalog.pg_type ON pg_type.oid = layer.oid WHERE pg_type.typtype <> 'd';
END;
