-- Acknowledge messages, and take others from the slots.
SELECT id, slot, deliveries, envelope, body
FROM celery_pgbg.consume(
    %(consumer_id)s::bigint, %(acked)s::bigint[], %(queue_ids)s::integer[], %(priorities)s::integer[],
    %(lowest_ids)s::bigint[], %(no_acks)s::boolean[], %(groups)s::integer[], %(limits)s::integer[]
)
