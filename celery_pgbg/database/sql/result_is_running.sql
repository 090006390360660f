-- Whether a statement of this task runs now, launched by whomever, and has left no outcome yet. On any session.
SELECT EXISTS (
    SELECT FROM celery_pgbg.execution AS execution
    WHERE execution.task_id = %(task_id)s::text
        AND celery_pgbg.is_running(execution.pid, execution.application_name, execution.launched_at)
        AND NOT EXISTS (
            SELECT FROM celery_pgbg.outcome AS outcome
            WHERE outcome.task_id = execution.task_id AND outcome.attempt = execution.attempt
        )
) AS running
