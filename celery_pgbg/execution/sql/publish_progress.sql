-- Put on record how far attempts have come, where every session can see it also when they have ended.
UPDATE celery_pgbg.execution AS execution
SET progress_percent = fresh.percent, progress_message = fresh.message
FROM ROWS FROM (
    unnest(%(task_ids)s::text[]), unnest(%(attempts)s::integer[]), unnest(%(percents)s::smallint[]),
    unnest(%(messages)s::text[])
) AS fresh (task_id, attempt, percent, message)
WHERE execution.task_id = fresh.task_id AND execution.attempt = fresh.attempt
    AND execution.owner = (SELECT celery_pgbg.owner())
