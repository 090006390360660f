-- Walk a table in the transaction that is open, batch by batch, without a commit. Transaction 2 is one that has always
-- been committed: nothing needs to be waited for.
CALL celery_pgbg.walk_v1(
    %(task_id)s::text, %(attempt)s::integer, '2'::xid8,
    celery_pgbg.attempt_key('attempt', %(task_id)s::text, %(attempt)s::integer),
    %(walk)s::jsonb, %(role)s::text, false
)
