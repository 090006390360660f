-- The outcomes of some attempts, those that have one.
SELECT
    outcome.task_id, outcome.attempt, outcome.pid, succeeded, returns, row_count, command_tag,
    column_names, column_types, row_texts, sqlstate, message, error_fields, settled_as, task_meta
FROM celery_pgbg.outcome
JOIN ROWS FROM (unnest(%(task_ids)s::text[]), unnest(%(attempts)s::integer[])) AS wanted (task_id, attempt)
    ON wanted.task_id = outcome.task_id AND wanted.attempt = outcome.attempt
WHERE outcome.owner = (SELECT celery_pgbg.owner())
