-- Be the only session with this turn, until it ends. A stranger who has its lock does not do the work: better two than none.
SELECT pg_catalog.pg_try_advisory_lock(celery_pgbg.lock_key('turn', %(turn)s::text))
    OR celery_pgbg.stranger(celery_pgbg.lock_key('turn', %(turn)s::text)) IS NOT NULL
