-- A field of an error; a long field is clipped, and says so.
CREATE OR REPLACE FUNCTION celery_pgbg.clipped(field pg_catalog.text) RETURNS pg_catalog.text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN pg_catalog.length(field) OPERATOR(pg_catalog.>) 10000 THEN
        pg_catalog.concat(pg_catalog.left(field, 10000), ' ... (clipped, ', pg_catalog.length(field), ' characters)')
    ELSE field
END;
