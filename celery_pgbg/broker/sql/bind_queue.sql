-- Let a queue get messages of an exchange; returns what is missing for that.
SELECT celery_pgbg.bind_queue(%(queue)s::text, %(exchange)s::text, %(routing_key)s::text)
