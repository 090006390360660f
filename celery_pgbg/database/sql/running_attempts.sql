-- Of some attempts, those whose recorded background worker is alive; one launched a moment ago counts
-- too, unless it is known to have shown itself. Any session.
SELECT task_id, attempt
FROM celery_pgbg.execution
JOIN unnest(%(task_ids)s::text[], %(attempts)s::integer[]) AS wanted (task_id, attempt)
    USING (task_id, attempt)
WHERE celery_pgbg.is_running(
    pid, application_name, CASE WHEN %(was_seen)s::boolean THEN '-infinity' ELSE launched_at END
)
