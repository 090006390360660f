-- Executions that run, or that ended within the last so many milliseconds. Any session.
SELECT
    execution.task_id, execution.attempt, execution.task_name, execution.atomic, execution.pid, execution.cookie,
    execution.nodename, execution.launched_at, execution.launches,
    execution.progress_percent, execution.progress_message,
    CASE
        WHEN outcome.succeeded THEN 'finished'
        WHEN outcome.task_id IS NOT NULL THEN 'failed'
        WHEN activity.pid IS NOT NULL THEN 'running'
        WHEN execution.launched_at > clock_timestamp() - interval '3 seconds' THEN 'starting'
        ELSE 'gone'
    END AS state,
    extract(epoch FROM coalesce(outcome.finished_at, clock_timestamp()) - execution.launched_at)::float8 AS seconds,
    concat_ws(': ', activity.wait_event_type, activity.wait_event) AS waits_for,
    coalesce(bgworker.work, activity.query) AS statement
FROM celery_pgbg.execution AS execution
LEFT JOIN celery_pgbg.outcome AS outcome USING (task_id, attempt)
LEFT JOIN pg_catalog.pg_stat_activity AS activity
    ON activity.pid = execution.pid
    AND activity.backend_type = 'pg_background'
    AND activity.application_name = execution.application_name
LEFT JOIN celery_pgbg.bgworker AS bgworker
    ON bgworker.task_id = execution.task_id AND bgworker.attempt = execution.attempt AND activity.pid IS NOT NULL
WHERE (
    outcome.task_id IS NULL
    AND (activity.pid IS NOT NULL OR execution.launched_at > clock_timestamp() - interval '3 seconds')
) OR coalesce(outcome.finished_at, execution.launched_at)
    > clock_timestamp() - %(ended_ms)s::bigint * interval '1 millisecond'
ORDER BY execution.launched_at
