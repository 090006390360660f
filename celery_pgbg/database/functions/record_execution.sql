-- Put on record which background worker runs an attempt, in the transaction that launches it.
--
-- A crash of the server that loses this record ends the background worker too, so the commit does not wait for the disk.
-- But the number of launches must survive, or a statement that crashes the server would do so for ever.
CREATE OR REPLACE FUNCTION celery_pgbg.record_execution(
    task_id text,
    attempt integer,
    task_name text,
    pid integer,
    cookie bigint,
    application_name text,
    nodename text
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    number integer;
BEGIN
    INSERT INTO celery_pgbg.execution AS e
        (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename)
    VALUES (
        record_execution.task_id, record_execution.attempt, record_execution.task_name, true,
        record_execution.pid, record_execution.cookie,
        record_execution.application_name, record_execution.nodename
    )
    ON CONFLICT (task_id, attempt, owner) DO UPDATE SET
        pid = excluded.pid, cookie = excluded.cookie, nodename = excluded.nodename,
        launcher_pid = excluded.launcher_pid, launched_by = excluded.launched_by,
        launched_at = excluded.launched_at, launches = e.launches OPERATOR(pg_catalog.+) 1,
        seen_at = NULL, terminated_at = NULL,
        progress_percent = NULL, progress_message = NULL
    RETURNING e.launches INTO number;
    IF number OPERATOR(pg_catalog.=) 1 THEN
        PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
    END IF;
END;
$$;
