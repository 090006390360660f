-- End subscriptions of a consumer.
SELECT celery_pgbg.unsubscribe(%(consumer_id)s::bigint, %(tag)s::text)
