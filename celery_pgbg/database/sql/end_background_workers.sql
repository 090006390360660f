-- End all background workers of SQL tasks in this database, for tests. SIGTERM: what they did is rolled
-- back, and their tasks are lost. Any session.
SELECT pg_terminate_backend(activity.pid)
FROM celery_pgbg.execution AS execution
JOIN pg_catalog.pg_stat_activity AS activity
    ON activity.pid = execution.pid
    AND activity.backend_type = 'pg_background'
    AND activity.application_name = execution.application_name
