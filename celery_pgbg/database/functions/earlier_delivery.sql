-- Take turns with other deliveries of the same attempt until the end of this transaction, and tell what an
-- earlier one left: finished (an outcome), attached (a worker that runs it; its handle), or NULL: launch it.
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
    is_running boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(
        celery_pgbg.lock_key('delivery', earlier_delivery.attempt || ' ' || earlier_delivery.task_id)
    );
    IF EXISTS (
        SELECT FROM celery_pgbg.outcome AS o
        WHERE o.task_id = earlier_delivery.task_id AND o.attempt = earlier_delivery.attempt
    ) THEN
        earlier_delivery.state := 'finished';
        RETURN;
    END IF;
    SELECT e.pid, e.cookie, celery_pgbg.is_running(e.pid, e.application_name, e.launched_at)
    INTO earlier_delivery.pid, earlier_delivery.cookie, is_running
    FROM celery_pgbg.execution AS e
    WHERE e.task_id = earlier_delivery.task_id AND e.attempt = earlier_delivery.attempt;
    earlier_delivery.is_first := NOT FOUND;
    IF is_running THEN
        earlier_delivery.state := 'attached';
    END IF;
END;
$$;
