-- Delete outcomes older than the limit and the records of launches that left none, unless another
-- session is at it.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(celery_pgbg.lock_key('delete expired', '')) AS ours
), old_outcome AS (
    DELETE FROM celery_pgbg.outcome
    WHERE finished_at < now() - %(age_ms)s::bigint * interval '1 millisecond' AND (SELECT ours FROM turn)
    RETURNING task_id, attempt
)
DELETE FROM celery_pgbg.execution AS execution
WHERE (SELECT ours FROM turn) AND (
    (execution.task_id, execution.attempt) IN (SELECT task_id, attempt FROM old_outcome)
    OR (
        execution.launched_at < now() - %(age_ms)s::bigint * interval '1 millisecond'
        AND NOT celery_pgbg.is_running(execution.pid, execution.application_name, execution.launched_at)
        AND NOT EXISTS (
            SELECT FROM celery_pgbg.outcome AS outcome
            WHERE outcome.task_id = execution.task_id AND outcome.attempt = execution.attempt
        )
    )
)
