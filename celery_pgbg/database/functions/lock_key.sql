-- The advisory lock key of a gate or an attempt, hashed with a seed of our own so that it does not
-- meet an application's keys.
CREATE OR REPLACE FUNCTION celery_pgbg.lock_key(kind text, name text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.hashtextextended(kind || ' ' || name, 7098221438016225);
