-- Take an exclusive turn until the session ends. If a foreign role holds the lock, it does not do the work, so the
-- turn is taken anyway: two workers are better than none.
SELECT pg_catalog.pg_try_advisory_lock(celery_pgbg.lock_key('turn', %(turn)s::text))
    OR celery_pgbg.stranger(celery_pgbg.lock_key('turn', %(turn)s::text)) IS NOT NULL
