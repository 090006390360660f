-- Let others have what this consumer has taken.
SELECT celery_pgbg.give_back(%(consumer_id)s::bigint, %(ids)s::bigint[], %(max_deliveries)s::integer)
