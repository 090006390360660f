-- Launches of an attempt that we have ended ourselves, and that it may have again, are no losses, and no session has to
-- say how they ended. Any session.
UPDATE celery_pgbg.execution SET launches = 0, launcher_pid = 0
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner())
