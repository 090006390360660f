-- Launch one attempt of a task in a background worker, unless it has ended or runs already.
--
-- Runs on a launcher's session, as its own transaction. This transaction is the gate: the background worker waits for
-- its end. So the background worker cannot end before its handle is recorded, and it ends at once if this transaction
-- rolls back.
--
-- State: finished (an outcome exists), attached (an earlier delivery's background worker runs; its PID), launched
-- (ours; the handle).
CREATE OR REPLACE FUNCTION celery_pgbg.launch(
    extension_schema text,
    launch_function text,
    queue_bytes integer,
    task_id text,
    attempt integer,
    task_name text,
    application_name text,
    nodename text,
    preamble text,
    statement text,
    is_plain_query boolean,
    returns text,
    role_name text,
    settings jsonb,
    max_result_bytes bigint,
    notify boolean,
    walk jsonb,
    message_id bigint DEFAULT NULL,
    task_meta jsonb DEFAULT NULL,
    OUT state text,
    OUT pid integer,
    OUT cookie bigint
)
LANGUAGE plpgsql
AS $$
DECLARE
    is_first boolean;
    call pg_catalog.text;
BEGIN
    SELECT earlier.* INTO state, pid, cookie, is_first
    FROM celery_pgbg.earlier_delivery(task_id, attempt) AS earlier;
    IF state IS NOT NULL THEN
        RETURN;
    END IF;

    -- The worker inherits these; they end with this transaction.
    IF settings IS NOT NULL THEN
        PERFORM pg_catalog.set_config(s.key, s.value, true) FROM pg_catalog.jsonb_each_text(settings) AS s;
    END IF;
    PERFORM pg_catalog.set_config('application_name', application_name, true);
    IF walk IS NOT NULL THEN
        -- All its batches are one statement.
        PERFORM pg_catalog.set_config('statement_timeout', '0', true);
        call := celery_pgbg.walk_call(task_id, attempt, walk, role_name);
    ELSE
        call := celery_pgbg.run_call(
            is_first, task_id, attempt, preamble, statement, is_plain_query, returns, role_name, max_result_bytes, notify,
            message_id, task_meta
        );
    END IF;
    EXECUTE pg_catalog.format('SELECT pid, cookie FROM %I.%I($1, $2)', extension_schema, launch_function)
    INTO pid, cookie
    -- both arguments, so that no other function fits better
    USING call, queue_bytes;
    PERFORM celery_pgbg.record_execution(task_id, attempt, task_name, pid, cookie, application_name, nodename);
    state := 'launched';
END;
$$;
