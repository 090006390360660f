-- Store the outcome of a statement that stood alone, from its launcher, after its end.
WITH stored AS (
    INSERT INTO celery_pgbg.outcome (
        task_id, attempt, succeeded, pid, started_at, finished_at, returns, command_tag,
        sqlstate, message, error_fields
    )
    SELECT
        task_id, attempt, %(succeeded)s::boolean, pid, launched_at, clock_timestamp(), 'command',
        %(command_tag)s::text, %(sqlstate)s::text, %(message)s::text, %(error_fields)s::jsonb
    FROM celery_pgbg.execution
    WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer
    ON CONFLICT (task_id, attempt) DO NOTHING
    RETURNING task_id, attempt
)
SELECT pg_notify('celery_pgbg_outcome', attempt || ' ' || task_id) FROM stored
