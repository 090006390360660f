-- Each queue: waiting messages, taken messages, age of the oldest, bytes, consumers. What lost consumers had waits.
SELECT
    queue.name,
    count(message.id) FILTER (WHERE message.taken_by IS NULL OR message.taken_by = ANY (lost.ids)) AS waiting,
    count(message.id) FILTER (WHERE message.taken_by <> ALL (lost.ids)) AS taken,
    extract(epoch FROM pg_catalog.clock_timestamp() - min(message.sent_at))::float8 AS oldest_seconds,
    coalesce(sum(pg_catalog.pg_column_size(message.body) + pg_catalog.octet_length(message.envelope)), 0)::bigint AS bytes,
    (
        SELECT count(*) FROM celery_pgbg.subscription
        WHERE subscription.queue_id = queue.id AND subscription.consumer_id <> ALL (lost.ids)
    ) AS consumers
FROM celery_pgbg.queue
CROSS JOIN (SELECT ARRAY(SELECT celery_pgbg.lost_consumers()) AS ids) AS lost
LEFT JOIN celery_pgbg.message ON message.queue_id = queue.id
GROUP BY queue.id, queue.name, lost.ids
ORDER BY queue.name
