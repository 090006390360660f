-- Wait for a launch or a hand-over of an attempt that is under way, and let no other begin until the end of this
-- transaction. Any session.
SELECT pg_advisory_xact_lock(
    celery_pgbg.lock_key('delivery', %(attempt)s::integer || ' ' || %(task_id)s::text)
)
