-- Take turns with other deliveries of the same attempt until the end of this transaction, and return what an earlier
-- delivery left. If a foreign role holds the lock, the turn is skipped.
--
-- State: finished (an outcome), attached (a background worker runs it; its handle), settling (its background worker
-- has ended without an outcome, and the launching session lives: it may know an error), worn out (it was launched as
-- often as this session allows, and ended without an outcome each time), or NULL: launch it.
CREATE OR REPLACE FUNCTION celery_pgbg.earlier_delivery(
    task_id text,
    attempt integer,
    OUT state text,
    OUT pid integer,
    OUT cookie bigint,
    OUT is_first boolean
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    own CONSTANT pg_catalog.regrole := celery_pgbg.owner();
    launches integer;
    launcher integer;
    launched timestamp with time zone;
    has_turn CONSTANT boolean := celery_pgbg.await_lock(
        celery_pgbg.attempt_key('delivery', earlier_delivery.task_id, earlier_delivery.attempt, own), own
    );
BEGIN
    IF EXISTS (
        SELECT FROM celery_pgbg.outcome AS o
        WHERE o.task_id OPERATOR(pg_catalog.=) earlier_delivery.task_id
            AND o.attempt OPERATOR(pg_catalog.=) earlier_delivery.attempt
            AND o.owner OPERATOR(pg_catalog.=) own
    ) THEN
        state := 'finished';
        RETURN;
    END IF;
    SELECT e.pid, e.cookie, e.launches, e.launcher_pid, e.launched_at INTO pid, cookie, launches, launcher, launched
    FROM celery_pgbg.execution AS e
    WHERE e.task_id OPERATOR(pg_catalog.=) earlier_delivery.task_id
        AND e.attempt OPERATOR(pg_catalog.=) earlier_delivery.attempt
        AND e.owner OPERATOR(pg_catalog.=) own;
    -- Without a turn two may launch at the same time: then their background workers settle it.
    is_first := NOT FOUND AND has_turn;
    IF pid IS NULL THEN
        RETURN;
    END IF;
    -- A query of its own: its start is expensive, even if it finds nothing to do.
    IF EXISTS (
        SELECT FROM celery_pgbg.live_attempts() AS live
        WHERE live.task_id OPERATOR(pg_catalog.=) earlier_delivery.task_id
            AND live.attempt OPERATOR(pg_catalog.=) earlier_delivery.attempt
            AND live.owner OPERATOR(pg_catalog.=) own
    ) THEN
        state := 'attached';
    ELSIF EXISTS (
        SELECT FROM pg_catalog.pg_stat_get_activity(launcher) AS process
        WHERE process.datid OPERATOR(pg_catalog.=) (
            SELECT d.oid FROM pg_catalog.pg_database AS d
            WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        ) AND (process.backend_start IS NULL OR process.backend_start OPERATOR(pg_catalog.<=) launched)
    ) THEN
        state := 'settling';
    ELSIF pg_catalog.current_setting('celery_pgbg.max_launches', true) OPERATOR(pg_catalog.<>) '' THEN
        IF launches OPERATOR(pg_catalog.>=) pg_catalog.current_setting('celery_pgbg.max_launches')::integer THEN
            state := 'worn out';
        END IF;
    END IF;
END;
$$;
