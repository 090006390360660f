-- Each queue: waiting messages, taken messages, age of the oldest, bytes, consumers.
SELECT
    queue.name,
    count(message.id) FILTER (WHERE message.taken_by IS NULL) AS waiting,
    count(message.id) FILTER (WHERE message.taken_by IS NOT NULL) AS taken,
    extract(epoch FROM pg_catalog.clock_timestamp() - min(message.sent_at))::float8 AS oldest_seconds,
    coalesce(sum(pg_catalog.pg_column_size(message.body) + pg_catalog.octet_length(message.envelope)), 0)::bigint AS bytes,
    (SELECT count(*) FROM celery_pgbg.subscription WHERE subscription.queue_id = queue.id) AS consumers
FROM celery_pgbg.queue
LEFT JOIN celery_pgbg.message ON message.queue_id = queue.id
GROUP BY queue.id, queue.name
ORDER BY queue.name
