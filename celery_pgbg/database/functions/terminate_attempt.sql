-- Stop the recorded background worker of one attempt from a session that did not launch it, after the identity
-- check. SIGTERM, which is what pg_background's own cancel sends. Returns whether it was sent.
--
-- A reusable worker may have gone on to another task. Deleting its row while it is still this attempt's means
-- that nothing can be handed over to it any more; and where something was, this attempt has an outcome.
CREATE OR REPLACE FUNCTION celery_pgbg.terminate_attempt(task_id text, attempt integer) RETURNS boolean
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM celery_pgbg.bgworker AS b
    WHERE b.task_id = terminate_attempt.task_id AND b.attempt = terminate_attempt.attempt;
    IF EXISTS (
        SELECT FROM celery_pgbg.outcome AS o
        WHERE o.task_id = terminate_attempt.task_id AND o.attempt = terminate_attempt.attempt
    ) THEN
        RETURN false;
    END IF;
    RETURN coalesce((
        SELECT pg_terminate_backend(activity.pid)
        FROM celery_pgbg.execution AS e
        JOIN pg_catalog.pg_stat_activity AS activity
            ON activity.pid = e.pid
            AND activity.backend_type = 'pg_background'
            AND activity.application_name = e.application_name
        WHERE e.task_id = terminate_attempt.task_id AND e.attempt = terminate_attempt.attempt
    ), false);
END;
$$;
