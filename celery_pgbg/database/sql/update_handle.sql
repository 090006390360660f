-- Put the handle of a statement that stands alone on record, after its launch.
UPDATE celery_pgbg.execution
SET pid = %(pid)s::integer, cookie = %(cookie)s::bigint, launched_at = clock_timestamp()
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer
