-- End the background worker of a task that keeps our tables locked, so that none of them can be asked: by the advisory
-- lock of the attempt, which its own role must hold. Needs neither our schema nor the extension. The seed is that of lock_key.
SELECT pg_terminate_backend(process.pid)
FROM pg_catalog.pg_stat_activity AS process
JOIN pg_catalog.pg_locks AS held ON held.pid = process.pid
CROSS JOIN unnest(%(attempts)s::integer[]) AS attempt (number)
WHERE process.backend_type = 'pg_background'
    AND process.datname = current_database()
    AND held.locktype = 'advisory' AND held.objsubid = 1 AND held.granted
    AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    AND ((held.classid::bigint << 32) | held.objid::bigint) = hashtextextended(
        concat_ws(' ', 'attempt', attempt.number, process.usesysid, %(task_id)s::text), 7098221438016225
    )
    AND EXISTS (
        SELECT FROM pg_catalog.pg_locks AS table_lock
        JOIN pg_catalog.pg_class AS locked ON locked.oid = table_lock.relation
        JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = locked.relnamespace
        WHERE table_lock.pid = process.pid AND table_lock.granted AND table_lock.locktype = 'relation'
            AND table_lock.database = held.database AND namespace.nspname = 'celery_pgbg'
            AND table_lock.mode = ANY (ARRAY['ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'])
    )
