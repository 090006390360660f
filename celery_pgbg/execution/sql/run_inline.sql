-- Run one attempt's statement in this session's own transaction, for tests. The gate is open: the
-- transaction that made the cluster, number 1, has committed. No notification of the outcome is sent.
SELECT celery_pgbg.run_v1(
    task_id => %(task_id)s::text,
    attempt => %(attempt)s::integer,
    owner => celery_pgbg.owner(),
    launch_xid => '1'::xid8,
    attempt_key => celery_pgbg.attempt_key('attempt', %(task_id)s::text, %(attempt)s::integer),
    is_first => false,
    preamble => %(preamble)s::text,
    statement => %(statement)s::text,
    is_plain_query => %(is_plain_query)s::boolean,
    returns => %(returns)s::text,
    role_name => %(role)s::text,
    max_result_bytes => %(max_result_bytes)s::bigint,
    notify => false
)
