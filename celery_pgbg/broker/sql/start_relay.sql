-- Note that a relay forwards messages: from now on send_task gives it messages without a declared queue here. And move to the
-- outbox what send_task has put into undeclared queues before. The ids stay, and so does the order.
WITH outbox AS (
    SELECT id FROM celery_pgbg.queue WHERE name_key = celery_pgbg.name_key(%(name)s::text)
), noted AS (
    UPDATE celery_pgbg.queue SET declared_at = pg_catalog.clock_timestamp()
    FROM outbox WHERE queue.id = outbox.id AND queue.declared_at = '-infinity'
)
UPDATE celery_pgbg.message SET queue_id = outbox.id, priority = 0
FROM outbox, celery_pgbg.queue AS undeclared
WHERE message.queue_id = undeclared.id AND message.taken_by IS NULL
    AND undeclared.declared_at = '-infinity' AND NOT pg_catalog.starts_with(undeclared.name, 'celery_pgbg.')
