-- Launch one attempt; on a launcher's session, a transaction of its own.
SELECT state, pid, cookie FROM celery_pgbg.launch(
    extension_schema => %(extension_schema)s::text,
    launch_function => %(launch_function)s::text,
    queue_bytes => %(queue_bytes)s::integer,
    task_id => %(task_id)s::text,
    attempt => %(attempt)s::integer,
    task_name => %(task_name)s::text,
    application_name => %(application_name)s::text,
    nodename => %(nodename)s::text,
    preamble => %(preamble)s::text,
    statement => %(statement)s::text,
    is_plain_query => %(is_plain_query)s::boolean,
    returns => %(returns)s::text,
    role_name => %(role)s::text,
    settings => %(settings)s::jsonb,
    max_result_bytes => %(max_result_bytes)s::bigint,
    notify => %(notify)s::boolean,
    walk => %(walk)s::jsonb,
    message_id => %(message_id)s::bigint,
    task_meta => %(task_meta)s::jsonb
)
