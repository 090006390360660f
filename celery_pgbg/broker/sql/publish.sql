-- Send one message; returns the number of queues.
SELECT celery_pgbg.publish(
    %(exchange)s::text, %(routing_key)s::text, %(priority)s::integer, %(ttl_ms)s::bigint, %(relaxed)s::boolean,
    %(envelope)s::text, %(body)s::bytea
)
