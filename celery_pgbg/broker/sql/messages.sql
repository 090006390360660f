-- The messages of a queue, the oldest first. What lost consumers had waits.
SELECT
    message.id,
    message.priority,
    message.deliveries,
    coalesce(message.taken_by <> ALL (ARRAY(SELECT celery_pgbg.lost_consumers())), false) AS is_taken,
    extract(epoch FROM pg_catalog.clock_timestamp() - message.sent_at)::float8 AS seconds,
    message.dead_from,
    pg_catalog.octet_length(message.body) AS bytes,
    message.envelope
FROM celery_pgbg.message
WHERE message.queue_id = (SELECT id FROM celery_pgbg.queue WHERE name_key = celery_pgbg.name_key(%(queue)s::text))
ORDER BY message.id
LIMIT %(limit)s::bigint
