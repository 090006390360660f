-- Store the outcome of a statement that stood alone, or the error of one that could not write its outcome itself,
-- from the session that launched it, after its end.
WITH stored AS (
    INSERT INTO celery_pgbg.outcome (
        task_id, attempt, succeeded, pid, started_at, finished_at, returns, command_tag,
        row_count, column_names, column_types, row_texts, sqlstate, message, error_fields
    )
    SELECT
        task_id, attempt, %(succeeded)s::boolean, pid, launched_at, clock_timestamp(), %(returns)s::text,
        %(command_tag)s::text, %(row_count)s::bigint, %(column_names)s::text, %(column_types)s::bytea,
        %(row_texts)s::text[], %(sqlstate)s::text, %(message)s::text, %(error_fields)s::jsonb
    FROM celery_pgbg.execution
    WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner())
    ON CONFLICT (task_id, attempt, owner) DO NOTHING
    RETURNING task_id, attempt
)
SELECT pg_notify('celery_pgbg_outcome', attempt || ' ' || task_id) FROM stored
