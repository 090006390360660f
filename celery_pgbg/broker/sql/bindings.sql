-- All bindings, by name.
SELECT queue.name AS queue, exchange.name AS exchange, binding.routing_key
FROM celery_pgbg.binding
JOIN celery_pgbg.queue ON queue.id = binding.queue_id
JOIN celery_pgbg.exchange ON exchange.id = binding.exchange_id
ORDER BY 2, 1, 3
