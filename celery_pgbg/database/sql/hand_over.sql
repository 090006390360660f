-- Hand one attempt over to a reusable background worker of this session; a transaction of its own.
SELECT state, pid, cookie FROM celery_pgbg.hand_over(
    bgworker_id => %(bgworker_id)s::bigint,
    last_turn => %(last_turn)s::integer,
    bgworker_pid => %(bgworker_pid)s::integer,
    bgworker_cookie => %(bgworker_cookie)s::bigint,
    task_id => %(task_id)s::text,
    attempt => %(attempt)s::integer,
    task_name => %(task_name)s::text,
    application_name => %(application_name)s::text,
    nodename => %(nodename)s::text,
    preamble => %(preamble)s::text,
    statement => %(statement)s::text,
    returns => %(returns)s::text,
    role_name => %(role)s::text,
    max_result_bytes => %(max_result_bytes)s::bigint,
    notify => %(notify)s::boolean
)
