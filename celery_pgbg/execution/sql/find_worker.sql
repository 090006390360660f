-- The live background worker of an attempt, by the attempt's advisory lock: needs neither our schema nor the
-- extension. The seed is that of lock_key.
SELECT held.pid
FROM pg_catalog.pg_locks AS held
JOIN pg_catalog.pg_stat_activity AS process ON process.pid = held.pid
WHERE held.locktype = 'advisory' AND held.objsubid = 1
    AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    AND ((held.classid::bigint << 32) | held.objid::bigint) = hashtextextended(
        concat_ws(' ', 'attempt', %(attempt)s::integer, quote_ident(CURRENT_USER)::regrole::oid, %(task_id)s::text),
        7098221438016225
    )
    AND (process.backend_type = 'pg_background' OR process.backend_type IS NULL)
