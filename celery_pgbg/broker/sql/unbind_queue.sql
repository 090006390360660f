-- Remove the binding of a queue to an exchange.
DELETE FROM celery_pgbg.binding
WHERE routing_key_hash = celery_pgbg.name_key(%(routing_key)s::text)
    AND queue_id = (SELECT id FROM celery_pgbg.queue WHERE name_key = celery_pgbg.name_key(%(queue)s::text))
    AND exchange_id = (SELECT id FROM celery_pgbg.exchange WHERE name_key = celery_pgbg.name_key(%(exchange)s::text))
