-- How often each task ran and failed, and how long it took, within the given milliseconds. A revoke is no failure.
SELECT
    execution.task_name,
    count(*) AS runs,
    count(*) FILTER (WHERE NOT outcome.succeeded AND coalesce(outcome.settled_as, '') <> 'revoked') AS failures,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::float8 AS p50_seconds,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds)::float8 AS p95_seconds
FROM celery_pgbg.outcome AS outcome
JOIN celery_pgbg.execution AS execution
    ON execution.task_id = outcome.task_id AND execution.attempt = outcome.attempt AND execution.owner = outcome.owner
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM outcome.finished_at - outcome.started_at) AS seconds
) AS taken
WHERE outcome.finished_at > (statement_timestamp() - (%(ended_ms)s::bigint * interval '1 millisecond'))
GROUP BY execution.task_name
ORDER BY runs DESC
