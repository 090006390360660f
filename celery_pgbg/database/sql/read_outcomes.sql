-- The outcomes of some attempts, those that have one.
SELECT
    task_id, attempt, succeeded, returns, row_count, command_tag,
    column_names, celery_pgbg.column_types(first_row) AS column_types, row_texts, sqlstate, message, error_fields
FROM celery_pgbg.outcome
JOIN unnest(%(task_ids)s::text[], %(attempts)s::integer[]) AS wanted (task_id, attempt)
    USING (task_id, attempt)
