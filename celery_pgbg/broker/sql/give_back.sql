-- Give this consumer's messages back to all consumers.
SELECT celery_pgbg.give_back(%(consumer_id)s::bigint, %(ids)s::bigint[], %(max_deliveries)s::integer)
