-- Forgive the launches of an attempt that we ended ourselves and that may run again: they are not losses, and no
-- session has to report their ends. Any session.
UPDATE celery_pgbg.execution SET launches = 0, launcher_pid = 0
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner())
