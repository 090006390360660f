-- Make a queue, unless it exists; with passive only look.
SELECT id, messages, consumers
FROM celery_pgbg.declare_queue(
    %(name)s::text, %(passive)s::boolean, %(auto_delete)s::boolean, %(max_priority)s::integer,
    %(message_ttl_ms)s::bigint, %(expires_ms)s::bigint
)
