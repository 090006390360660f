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
#variable_conflict use_column
DECLARE
    launch_xid CONSTANT xid8 := pg_current_xact_id();
    gate_key CONSTANT bigint := celery_pgbg.lock_key('gate', launch_xid::text);
    attempt_key CONSTANT bigint := celery_pgbg.lock_key('attempt', launch.attempt || ' ' || launch.task_id);
    is_first boolean := true;
    is_running boolean;
    setting record;
    work text;
BEGIN
    PERFORM pg_advisory_xact_lock(celery_pgbg.lock_key('delivery', launch.attempt || ' ' || launch.task_id));
    IF EXISTS (
        SELECT FROM celery_pgbg.outcome AS o WHERE o.task_id = launch.task_id AND o.attempt = launch.attempt
    ) THEN
        launch.state := 'finished';
        RETURN;
    END IF;

    SELECT e.pid, e.cookie, celery_pgbg.is_running(e.pid, e.application_name, e.launched_at)
    INTO launch.pid, launch.cookie, is_running
    FROM celery_pgbg.execution AS e
    WHERE e.task_id = launch.task_id AND e.attempt = launch.attempt;
    IF FOUND THEN
        IF is_running THEN
            launch.state := 'attached';
            RETURN;
        END IF;
        is_first := false;
    END IF;

    PERFORM pg_advisory_xact_lock(gate_key);
    work := format(
        'SELECT celery_pgbg.run_v1(%L, %s, %L, %s, %s, %L, %L, %L, %L, %L, %s, %L)',
        launch.task_id, launch.attempt, launch_xid, gate_key, attempt_key, is_first, launch.preamble,
        launch.statement, launch.returns, launch.role_name, launch.max_result_bytes, launch.notify
    );
    -- The worker inherits these; they end with this transaction.
    FOR setting IN SELECT s.key, s.value FROM jsonb_each_text(launch.settings) AS s LOOP
        PERFORM set_config(setting.key, setting.value, true);
    END LOOP;
    PERFORM set_config('application_name', launch.application_name, true);
    EXECUTE format('SELECT pid, cookie FROM %I.%I($1)', launch.extension_schema, launch.launch_function)
    INTO launch.pid, launch.cookie USING work;

    -- A crash of the server that loses this record ends the worker as well, so nobody waits for the disk.
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO celery_pgbg.execution AS e
        (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename)
    VALUES
        (launch.task_id, launch.attempt, launch.task_name, true, launch.pid, launch.cookie,
            launch.application_name, launch.nodename)
    ON CONFLICT (task_id, attempt) DO UPDATE SET
        pid = excluded.pid, cookie = excluded.cookie, nodename = excluded.nodename,
        launcher_pid = excluded.launcher_pid, launched_by = excluded.launched_by,
        launched_at = excluded.launched_at, launches = e.launches + 1,
        progress_percent = NULL, progress_message = NULL;
    launch.state := 'launched';
END;
$$;
