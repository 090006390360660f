-- Give the messages of lost consumers to others, and delete expired messages and queues; then acknowledge messages, and
-- take others from the slots. A row without an id if there are none. A consumer that is no longer on record takes nothing;
-- because the slots depend on that, the server tends first.
SELECT taken.id, taken.slot, taken.deliveries, taken.envelope, taken.body, tended.is_known
FROM celery_pgbg.tend_broker(
    %(consumer_id)s::bigint, %(lease_ms)s::bigint, %(max_deliveries)s::integer, %(thorough)s::boolean
) AS tended (is_known)
LEFT JOIN LATERAL celery_pgbg.consume(
    %(consumer_id)s::bigint, %(acked)s::bigint[],
    CASE WHEN tended.is_known THEN %(queue_ids)s::integer[] ELSE '{}' END, %(priorities)s::integer[],
    %(lowest_ids)s::bigint[], %(no_acks)s::boolean[], %(groups)s::integer[], %(limits)s::integer[]
) AS taken ON true
