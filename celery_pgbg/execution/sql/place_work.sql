-- Place orders for reusable background workers; on a launcher's session, a transaction of its own.
SELECT number, state, pid, cookie, workers FROM celery_pgbg.place_work(
    pools => %(pool)s::text[],
    task_ids => %(task_id)s::text[],
    attempts => %(attempt)s::integer[],
    task_names => %(task_name)s::text[],
    application_names => %(application_name)s::text[],
    nodenames => %(nodename)s::text[],
    preambles => %(preamble)s::text[],
    statements => %(statement)s::text[],
    shapes => %(returns)s::text[],
    role_names => %(role)s::text[],
    limits => %(max_result_bytes)s::bigint[],
    notifies => %(notify)s::boolean[],
    message_ids => %(message_id)s::bigint[],
    task_metas => %(task_meta)s::jsonb[]
)
