-- Make this session a consumer, in place of an earlier consumer of this process, if any; returns its id.
SELECT celery_pgbg.register_consumer(%(name)s::text, %(lease_ms)s::bigint, %(earlier)s::bigint)
