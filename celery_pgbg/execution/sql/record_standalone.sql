-- Put a statement that stands alone on record before its launch; says what an earlier delivery left.
SELECT state, pid FROM celery_pgbg.record_standalone(
    task_id => %(task_id)s::text,
    attempt => %(attempt)s::integer,
    task_name => %(task_name)s::text,
    application_name => %(application_name)s::text,
    nodename => %(nodename)s::text
)
