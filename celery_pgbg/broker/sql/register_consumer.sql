-- Make this session a consumer, in place of an earlier one of this process, if there was one; returns its id.
SELECT celery_pgbg.register_consumer(%(name)s::text, %(lease_ms)s::bigint, %(earlier)s::bigint)
