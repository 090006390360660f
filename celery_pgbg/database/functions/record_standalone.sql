-- Put a statement that stands alone on record, before its launch, in a transaction of its own on the session that
-- will launch it. From then on that session holds a lock, which shows every session that it waits for the statement.
--
-- State: recorded; finished (an outcome exists); attached (an earlier delivery's background worker runs it, or the
-- launching session of that delivery lives; the PID, 0 before the launch); gone (neither, and no outcome).
CREATE OR REPLACE FUNCTION celery_pgbg.record_standalone(
    task_id text, attempt integer, task_name text, application_name text, nodename text,
    OUT state text, OUT pid integer
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
    LOOP
        SELECT
            CASE
                WHEN earlier.state IS NOT NULL THEN earlier.state
                -- of the existing record
                WHEN earlier.pid IS NOT NULL THEN 'gone'
            END,
            earlier.pid
        INTO state, pid
        FROM celery_pgbg.earlier_delivery(record_standalone.task_id, record_standalone.attempt) AS earlier;
        IF state IS NOT NULL THEN
            RETURN;
        END IF;
        INSERT INTO celery_pgbg.execution
            (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename)
        VALUES
            (record_standalone.task_id, record_standalone.attempt, record_standalone.task_name, false, 0, 0,
                record_standalone.application_name, record_standalone.nodename)
        ON CONFLICT DO NOTHING;
        -- If deliveries have no turn, because a stranger holds their lock, the primary key lets one through.
        EXIT WHEN FOUND;
    END LOOP;
    PERFORM pg_catalog.pg_try_advisory_lock(
        celery_pgbg.attempt_key('standalone', record_standalone.task_id, record_standalone.attempt)
    );
    state := 'recorded';
END;
$$;
