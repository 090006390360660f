-- Of some attempts, those whose recorded background worker is alive. Any session.
SELECT task_id, attempt
FROM celery_pgbg.execution
JOIN unnest(%(task_ids)s::text[], %(attempts)s::integer[]) AS wanted (task_id, attempt)
    USING (task_id, attempt)
WHERE celery_pgbg.is_running(pid, application_name, launched_at)
