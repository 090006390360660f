-- The waiting messages of some queues: their number, up to a limit, their bytes, and the age of the oldest.
SELECT queue.name, waiting.messages AS waiting, waiting.oldest_seconds, waiting.bytes
FROM celery_pgbg.queue
CROSS JOIN LATERAL (
    SELECT
        count(*) AS messages,
        extract(epoch FROM clock_timestamp() - min(counted.sent_at))::float8 AS oldest_seconds,
        coalesce(sum(counted.bytes), 0)::bigint AS bytes
    FROM (
        SELECT message.sent_at, pg_catalog.pg_column_size(message.body) + pg_catalog.pg_column_size(message.envelope) AS bytes
        FROM celery_pgbg.message
        WHERE message.taken_by IS NULL AND message.queue_id = queue.id
        ORDER BY message.queue_id, message.priority, message.id
        LIMIT %(limit)s::bigint
    ) AS counted
) AS waiting
WHERE queue.id = ANY (%(queue_ids)s::integer[])
ORDER BY queue.name
