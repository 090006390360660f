-- Launch one attempt in a reusable background worker; on a launcher's session, a transaction of its own.
SELECT state, pid, cookie, bgworker_id FROM celery_pgbg.launch_reusable(
    extension_schema => %(extension_schema)s::text,
    launch_function => %(launch_function)s::text,
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
