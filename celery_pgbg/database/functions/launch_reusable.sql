-- Launch one attempt as ``launch`` does, in a background worker that other attempts can be handed over to.
--
-- The worker inherits no time limit of a statement: its whole life is one statement.
CREATE OR REPLACE FUNCTION celery_pgbg.launch_reusable(
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
    max_result_bytes bigint,
    notify boolean,
    OUT state text,
    OUT pid integer,
    OUT cookie bigint,
    OUT bgworker_id bigint
)
LANGUAGE plpgsql
AS $$
DECLARE
    gate_key CONSTANT bigint := celery_pgbg.lock_key('gate', pg_current_xact_id()::text);
    is_first boolean;
BEGIN
    SELECT earlier.* INTO state, pid, cookie, is_first
    FROM celery_pgbg.earlier_delivery(task_id, attempt) AS earlier;
    IF state IS NOT NULL THEN
        RETURN;
    END IF;

    PERFORM pg_advisory_xact_lock(gate_key);
    INSERT INTO celery_pgbg.bgworker AS b (task_id, attempt, application_name, work)
    VALUES (
        launch_reusable.task_id, launch_reusable.attempt, launch_reusable.application_name,
        celery_pgbg.run_call(
            gate_key, is_first, launch_reusable.task_id, launch_reusable.attempt, preamble, statement,
            returns, role_name, max_result_bytes, notify
        )
    )
    RETURNING b.id INTO bgworker_id;
    PERFORM set_config('application_name', application_name, true);
    EXECUTE format('SELECT pid, cookie FROM %I.%I($1)', extension_schema, launch_function)
    INTO pid, cookie
    USING format('CALL celery_pgbg.serve_v1(%s, %s)', bgworker_id, gate_key);
    PERFORM celery_pgbg.record_execution(task_id, attempt, task_name, pid, cookie, application_name, nodename);
    state := 'launched';
END;
$$;
