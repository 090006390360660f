-- Launch a background worker that takes the orders of a pool; on a launcher's session, a transaction of its own.
SELECT pid, cookie FROM celery_pgbg.launch_reusable(
    extension_schema => %(extension_schema)s::text,
    launch_function => %(launch_function)s::text,
    queue_bytes => %(queue_bytes)s::integer,
    pool => %(pool)s::text,
    application_name => %(application_name)s::text,
    settings => %(settings)s::jsonb
)
