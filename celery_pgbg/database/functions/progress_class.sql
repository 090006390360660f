-- The upper half of the advisory lock keys by which statements report their progress; the lower half is the percent.
CREATE OR REPLACE FUNCTION celery_pgbg.progress_class() RETURNS oid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ((celery_pgbg.lock_key('progress', '') >> 32) & 4294967295)::oid;
