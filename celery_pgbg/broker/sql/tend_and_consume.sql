-- Give others what lost consumers had taken, and end what has expired; then acknowledge messages, and take others from
-- the slots. A row without an id where there are none. Nothing is taken by a consumer that is no longer on record; that
-- the slots depend on it has the server tend first.
SELECT taken.id, taken.slot, taken.deliveries, taken.envelope, taken.body, tended.is_known
FROM celery_pgbg.tend_broker(
    %(consumer_id)s::bigint, %(lease_ms)s::bigint, %(max_deliveries)s::integer, %(thorough)s::boolean
) AS tended (is_known)
LEFT JOIN LATERAL celery_pgbg.consume(
    %(consumer_id)s::bigint, %(acked)s::bigint[],
    CASE WHEN tended.is_known THEN %(queue_ids)s::integer[] ELSE '{}' END, %(priorities)s::integer[],
    %(lowest_ids)s::bigint[], %(no_acks)s::boolean[], %(groups)s::integer[], %(limits)s::integer[]
) AS taken ON true
