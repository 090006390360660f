-- The attempts of a task whose background workers are alive. Any session.
SELECT execution.attempt, execution.atomic, execution.application_name
FROM celery_pgbg.execution AS execution
JOIN pg_catalog.pg_stat_activity AS activity
    ON activity.pid = execution.pid
    AND activity.backend_type = 'pg_background'
    AND activity.application_name = execution.application_name
WHERE execution.task_id = %(task_id)s::text
