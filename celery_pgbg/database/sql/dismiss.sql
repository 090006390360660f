-- Let reusable background workers that have no task end: each does so as soon as it misses its row. Any session.
DELETE FROM celery_pgbg.bgworker WHERE id = ANY(%(bgworker_ids)s::bigint[])
