-- The advisory locks of this database with one number as their key, like all of ours: the processes that hold each
-- lock, or wait for it.
--
-- A plain query, so that it becomes part of the caller's query.
CREATE OR REPLACE FUNCTION celery_pgbg.advisory_locks() RETURNS TABLE (pid integer, key bigint, granted boolean)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT held.pid, (held.classid::bigint << 32) | held.objid::bigint, held.granted
    FROM pg_catalog.pg_locks AS held
    WHERE held.locktype = 'advisory'
        AND held.objsubid = 1
        AND held.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database());
END;
