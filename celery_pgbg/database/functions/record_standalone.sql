-- Put a statement that stands alone on record, before its launch, in a transaction of its own.
-- Returns false where an earlier delivery's worker still runs it, or has left an outcome.
CREATE OR REPLACE FUNCTION celery_pgbg.record_standalone(
    task_id text, attempt integer, task_name text, application_name text, nodename text,
    OUT state text, OUT pid integer
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock(
        celery_pgbg.lock_key('delivery', record_standalone.attempt || ' ' || record_standalone.task_id)
    );
    SELECT 'finished', o.pid INTO record_standalone.state, record_standalone.pid
    FROM celery_pgbg.outcome AS o
    WHERE o.task_id = record_standalone.task_id AND o.attempt = record_standalone.attempt;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT
        CASE WHEN e.launched_at > clock_timestamp() - interval '3 seconds' OR activity.pid IS NOT NULL
            THEN 'attached' ELSE 'gone' END,
        coalesce(activity.pid, e.pid)
    INTO record_standalone.state, record_standalone.pid
    FROM celery_pgbg.execution AS e
    LEFT JOIN pg_catalog.pg_stat_activity AS activity
        ON activity.backend_type = 'pg_background' AND activity.application_name = e.application_name
    WHERE e.task_id = record_standalone.task_id AND e.attempt = record_standalone.attempt;
    IF FOUND THEN
        RETURN;
    END IF;
    INSERT INTO celery_pgbg.execution
        (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename)
    VALUES
        (record_standalone.task_id, record_standalone.attempt, record_standalone.task_name, false, 0, 0,
            record_standalone.application_name, record_standalone.nodename);
    record_standalone.state := 'recorded';
END;
$$;
