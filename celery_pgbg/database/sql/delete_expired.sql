-- Delete outcomes older than the limit, except those that are the value of a stored result, and the
-- records of launches that left none, and what reusable workers left that did not end by themselves, unless
-- another session is at it.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(celery_pgbg.lock_key('delete expired', '')) AS ours
), old_outcome AS (
    DELETE FROM celery_pgbg.outcome AS outcome
    WHERE finished_at < now() - %(age_ms)s::bigint * interval '1 millisecond' AND (SELECT ours FROM turn)
        AND NOT EXISTS (
            SELECT FROM celery_pgbg.result AS result
            WHERE result.task_id = outcome.task_id AND result.outcome_attempt = outcome.attempt
                AND NOT result.forgotten
        )
        AND NOT EXISTS (
            SELECT FROM celery_pgbg.chord_part AS part
            WHERE part.task_id = outcome.task_id AND part.outcome_attempt = outcome.attempt
        )
    RETURNING outcome.task_id, outcome.attempt
), old_bgworker AS (
    -- one that still runs ends after its task
    DELETE FROM celery_pgbg.bgworker
    WHERE changed_at < now() - %(age_ms)s::bigint * interval '1 millisecond' AND (SELECT ours FROM turn)
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
