-- Whether another session ended an attempt's background worker on our demand, or has launched a new one since, whose record
-- this is then. Waits for a session that is just doing so. Any session.
SELECT terminated_at IS NOT NULL OR pid <> %(pid)s::integer OR cookie <> %(cookie)s::bigint
FROM celery_pgbg.execution
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner())
FOR SHARE
