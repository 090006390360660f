-- Stop the recorded background worker of one attempt from a session that did not launch it.
SELECT celery_pgbg.terminate_attempt(task_id => %(task_id)s::text, attempt => %(attempt)s::integer) AS signalled
