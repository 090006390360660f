-- Let a queue get messages of an exchange; returns the missing one: exchange, queue, or NULL.
SELECT celery_pgbg.bind_queue(%(queue)s::text, %(exchange)s::text, %(routing_key)s::text)
