-- The session of a foreign role that holds one of our advisory locks: the role is neither a superuser nor a member nor
-- the caller; with an owner given, it does not act for that owner. NULL without such a session. Keys are not secret:
-- every role that may connect can hold any lock.
CREATE OR REPLACE FUNCTION celery_pgbg.stranger(key bigint, owner regrole DEFAULT NULL) RETURNS integer
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT held.pid
    FROM pg_catalog.pg_locks AS held
    JOIN pg_catalog.pg_stat_get_activity(held.pid) AS process ON true
    WHERE held.locktype = 'advisory'
        AND held.objsubid = 1
        AND held.granted
        AND held.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
        AND (held.classid::bigint << 32) | held.objid::bigint = key
        AND process.usesysid <> quote_ident(CURRENT_USER)::regrole::oid
        AND process.usesysid <> quote_ident(SESSION_USER)::regrole::oid
        AND (stranger.owner IS NULL OR process.usesysid <> stranger.owner)
        AND NOT EXISTS (
            SELECT FROM celery_pgbg.member AS m
            WHERE m.role = process.usesysid AND (stranger.owner IS NULL OR m.owner = stranger.owner)
        )
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = process.usesysid AND r.rolsuper)
    LIMIT 1;
END;
