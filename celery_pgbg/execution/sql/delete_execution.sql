-- Delete a record whose launch did not happen.
DELETE FROM celery_pgbg.execution
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner())
