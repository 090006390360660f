-- Stop the background worker of one attempt from a session that did not launch it, unless the attempt has an outcome;
-- also then where that is our own cancel.
SELECT celery_pgbg.terminate_attempt(
    task_id => %(task_id)s::text,
    attempt => %(attempt)s::integer,
    although_finished => %(although_finished)s::boolean
) AS signalled
