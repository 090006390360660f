-- Note that no session tends a statement that stands alone any more: its launching session has given no answer, and
-- may live on in the server without us.
UPDATE celery_pgbg.execution SET launcher_pid = 0
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer
    AND owner = (SELECT celery_pgbg.owner()) AND launcher_pid <> pg_backend_pid()
