-- Send dead letters back to their queues, as if never delivered; one id, or all. A message without its queue stays.
WITH back AS (
    UPDATE celery_pgbg.message SET queue_id = queue.id, deliveries = 0, dead_from = NULL
    FROM celery_pgbg.queue
    WHERE message.dead_from = queue.name AND message.taken_by IS NULL
        AND (%(id)s::bigint IS NULL OR message.id = %(id)s::bigint)
    RETURNING queue.id
), notified AS (
    SELECT pg_catalog.pg_notify('celery_pgbg_queue_' || woken.id, 'returned') FROM (SELECT DISTINCT id FROM back) AS woken
)
SELECT (SELECT count(*) FROM back), (SELECT count(*) FROM notified)
