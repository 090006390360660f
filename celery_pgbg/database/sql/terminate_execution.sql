-- Stop the recorded background worker of one attempt from a session that did not launch it, after
-- the identity check. SIGTERM, which is what pg_background's own cancel sends.
SELECT pg_terminate_backend(activity.pid) AS signalled
FROM celery_pgbg.execution AS execution
JOIN pg_catalog.pg_stat_activity AS activity
    ON activity.pid = execution.pid
    AND activity.backend_type = 'pg_background'
    AND activity.application_name = execution.application_name
WHERE execution.task_id = %(task_id)s::text AND execution.attempt = %(attempt)s::integer
