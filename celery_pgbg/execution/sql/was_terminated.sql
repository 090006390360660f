-- Whether a session that did not launch an attempt ended its background worker on our demand, or has launched another
-- since: then the record is of that one. Waits for one that is just doing so. Any session.
SELECT terminated_at IS NOT NULL OR pid <> %(pid)s::integer OR cookie <> %(cookie)s::bigint
FROM celery_pgbg.execution
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner())
FOR SHARE
