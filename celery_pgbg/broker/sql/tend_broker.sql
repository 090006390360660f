-- Give others what lost consumers had taken, and end what has expired; returns whether this consumer is on record.
SELECT celery_pgbg.tend_broker(
    %(consumer_id)s::bigint, %(lease_ms)s::bigint, %(max_deliveries)s::integer, %(thorough)s::boolean
)
