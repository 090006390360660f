-- Let a consumer take from a queue; the id is NULL if the queue does not exist.
SELECT id, max_priority
FROM celery_pgbg.subscribe(%(consumer_id)s::bigint, %(queue)s::text, %(tag)s::text)
