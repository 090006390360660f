-- Give the messages of lost consumers to others, and delete expired messages and queues. Returns whether this consumer is
-- on record.
SELECT celery_pgbg.tend_broker(
    %(consumer_id)s::bigint, %(lease_ms)s::bigint, %(max_deliveries)s::integer, %(thorough)s::boolean
)
