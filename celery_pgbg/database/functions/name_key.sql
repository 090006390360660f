-- The unique key of a name of any length.
CREATE OR REPLACE FUNCTION celery_pgbg.name_key(name text) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.sha256(pg_catalog.convert_to(name, 'UTF8'));
