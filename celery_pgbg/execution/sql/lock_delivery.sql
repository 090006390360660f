-- Wait for a launch or a hand-over of an attempt that is under way, and let no other begin until the end of this
-- transaction. Any session.
SELECT celery_pgbg.await_lock(
    celery_pgbg.attempt_key('delivery', %(task_id)s::text, %(attempt)s::integer), celery_pgbg.owner()
)
