-- The launched attempts of a task, oldest first, with their number of launches.
SELECT attempt, launches FROM celery_pgbg.execution
WHERE task_id = %(task_id)s::text AND owner = (SELECT celery_pgbg.owner())
ORDER BY attempt
