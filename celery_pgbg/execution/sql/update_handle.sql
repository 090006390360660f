-- Record the handle of a statement that stands alone, after its launch, and a moment at which the process with its PID
-- was its background worker: any process with that PID that began before that moment is that background worker.
UPDATE celery_pgbg.execution
SET pid = %(pid)s::integer, cookie = %(cookie)s::bigint, launched_at = clock_timestamp(),
    seen_at = %(seen_at)s::timestamptz
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner())
