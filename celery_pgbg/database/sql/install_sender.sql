-- Let a role send tasks, and nothing else: it can read, take and delete no message, nor change a queue of others.
GRANT USAGE ON SCHEMA celery_pgbg TO {role};
GRANT SELECT ON celery_pgbg.migration TO {role};
GRANT EXECUTE ON FUNCTION
    celery_pgbg.declare_queue, celery_pgbg.declare_exchange, celery_pgbg.bind_queue, celery_pgbg.publish, celery_pgbg.send_task
TO {role};
