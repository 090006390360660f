-- Run one attempt's statement in this session's own transaction, for tests. The gate is open: the
-- transaction that made the cluster, number 1, has committed. Nobody is told of the outcome.
SELECT celery_pgbg.run_v1(
    task_id => %(task_id)s::text,
    attempt => %(attempt)s::integer,
    launch_xid => '1'::xid8,
    gate_key => celery_pgbg.lock_key('gate', 'inline'),
    attempt_key => celery_pgbg.lock_key('attempt', %(attempt)s || ' ' || %(task_id)s::text),
    is_first => false,
    preamble => %(preamble)s::text,
    statement => %(statement)s::text,
    returns => %(returns)s::text,
    role_name => %(role)s::text,
    max_result_bytes => %(max_result_bytes)s::bigint,
    notify => false
)
