-- The attempts of a task that were launched, oldest first, and how often each was.
SELECT attempt, launches FROM celery_pgbg.execution
WHERE task_id = %(task_id)s::text AND owner = (SELECT celery_pgbg.owner())
ORDER BY attempt
