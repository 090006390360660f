-- Launch one attempt of a task in a background worker, unless it has ended or runs already.
--
-- Runs on a launcher's session, as a transaction of its own. It holds the gate, an advisory lock
-- that the worker waits for, until this transaction commits: so the worker cannot end before its
-- handle is known and on record, and ends at once where this transaction rolls back.
--
-- State: finished (an outcome is there), attached (a worker of an earlier delivery runs; its PID),
-- launched (ours; the handle).
CREATE OR REPLACE FUNCTION celery_pgbg.launch(
    extension_schema text,
    launch_function text,
    task_id text,
    attempt integer,
    task_name text,
    application_name text,
    nodename text,
    preamble text,
    statement text,
    returns text,
    role_name text,
    settings jsonb,
    max_result_bytes bigint,
    notify boolean,
    OUT state text,
    OUT pid integer,
    OUT cookie bigint
)
LANGUAGE plpgsql
AS $$
DECLARE
    gate_key CONSTANT bigint := celery_pgbg.lock_key('gate', pg_current_xact_id()::text);
    is_first boolean;
    setting record;
BEGIN
    SELECT earlier.* INTO state, pid, cookie, is_first
    FROM celery_pgbg.earlier_delivery(task_id, attempt) AS earlier;
    IF state IS NOT NULL THEN
        RETURN;
    END IF;

    PERFORM pg_advisory_xact_lock(gate_key);
    -- The worker inherits these; they end with this transaction.
    FOR setting IN SELECT s.key, s.value FROM jsonb_each_text(settings) AS s LOOP
        PERFORM set_config(setting.key, setting.value, true);
    END LOOP;
    PERFORM set_config('application_name', application_name, true);
    EXECUTE format('SELECT pid, cookie FROM %I.%I($1)', extension_schema, launch_function)
    INTO pid, cookie
    USING celery_pgbg.run_call(
        gate_key, is_first, task_id, attempt, preamble, statement, returns, role_name,
        max_result_bytes, notify
    );
    PERFORM celery_pgbg.record_execution(task_id, attempt, task_name, pid, cookie, application_name, nodename);
    state := 'launched';
END;
$$;
