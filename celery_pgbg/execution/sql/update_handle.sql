-- Put the handle of a statement that stands alone on record, after its launch, and a moment at which the process of
-- its PID was its background worker: any process of that PID which began before is that one.
UPDATE celery_pgbg.execution
SET pid = %(pid)s::integer, cookie = %(cookie)s::bigint, launched_at = clock_timestamp(),
    seen_at = %(seen_at)s::timestamptz
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner())
