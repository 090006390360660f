-- Tasks whose latest attempt failed within the given milliseconds, the latest failure first; a revoke is no failure. Any
-- session.
SELECT
    outcome.task_id, outcome.attempt, execution.task_name, execution.nodename, execution.launches,
    outcome.finished_at, outcome.sqlstate, outcome.message,
    extract(epoch FROM outcome.finished_at - outcome.started_at)::float8 AS seconds
FROM celery_pgbg.outcome AS outcome
LEFT JOIN celery_pgbg.execution AS execution
    ON execution.task_id = outcome.task_id AND execution.attempt = outcome.attempt AND execution.owner = outcome.owner
WHERE NOT outcome.succeeded
    AND coalesce(outcome.settled_as, '') <> 'revoked'
    AND outcome.finished_at > (statement_timestamp() - (%(ended_ms)s::bigint * interval '1 millisecond'))
    AND (%(task_name)s::text IS NULL OR execution.task_name = %(task_name)s::text)
    AND NOT EXISTS (
        SELECT FROM celery_pgbg.execution AS later
        WHERE later.task_id = outcome.task_id AND later.attempt > outcome.attempt AND later.owner = outcome.owner
    )
    AND NOT EXISTS (
        SELECT FROM celery_pgbg.outcome AS later
        WHERE later.task_id = outcome.task_id AND later.attempt > outcome.attempt AND later.owner = outcome.owner
    )
ORDER BY outcome.finished_at DESC
LIMIT %(limit)s::bigint
