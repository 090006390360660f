-- End the background workers of SQL tasks in this database, of one task or of all, for tests. SIGTERM:
-- what they did is rolled back, and the tasks are lost. Any session.
SELECT pg_terminate_backend(activity.pid)
FROM celery_pgbg.execution AS execution
JOIN pg_catalog.pg_stat_activity AS activity
    ON activity.pid = execution.pid
    AND activity.backend_type = 'pg_background'
    AND activity.application_name = execution.application_name
WHERE execution.task_id = %(task_id)s::text OR %(task_id)s::text IS NULL
