-- The outcomes of some attempts. OFFSET 0 lets the server look them up one by one, even with a plan made while the table was
-- empty: such a plan as a join would read the whole table from then on.
SELECT
    outcome.task_id, outcome.attempt, outcome.pid, succeeded, returns, row_count, command_tag,
    column_names, column_types, row_texts, sqlstate, message, error_fields, settled_as, task_meta
FROM ROWS FROM (unnest(%(task_ids)s::text[]), unnest(%(attempts)s::integer[])) AS wanted (task_id, attempt)
CROSS JOIN LATERAL (
    SELECT * FROM celery_pgbg.outcome AS o
    WHERE o.task_id = wanted.task_id AND o.attempt = wanted.attempt AND o.owner = (SELECT celery_pgbg.owner())
    OFFSET 0
) AS outcome
