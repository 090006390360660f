-- A queue's id and its highest priority.
SELECT id, max_priority FROM celery_pgbg.queue WHERE name_key = celery_pgbg.name_key(%(name)s::text)
