-- Before a task is stopped by hand: leave a failure as the outcome of each attempt that runs, so that its worker
-- cannot commit any more, nor a redelivery run it again. One that has just left its outcome stands, and is not
-- to be stopped. A statement that stands alone is not redelivered, and gets no outcome. Nothing more is handed
-- over to a reusable worker. Any session, a transaction of its own.
WITH live AS MATERIALIZED (
    SELECT
        execution.task_id, execution.attempt, execution.atomic, execution.launched_at, activity.pid,
        execution.application_name
    FROM celery_pgbg.execution AS execution
    JOIN pg_catalog.pg_stat_activity AS activity
        ON activity.pid = execution.pid
        AND activity.backend_type = 'pg_background'
        AND activity.application_name = execution.application_name
    WHERE execution.task_id = %(task_id)s::text
), stored AS (
    INSERT INTO celery_pgbg.outcome (task_id, attempt, succeeded, pid, started_at, finished_at, sqlstate, message)
    SELECT task_id, attempt, false, pid, launched_at, clock_timestamp(), '57014', %(message)s::text
    FROM live
    WHERE atomic
    ON CONFLICT (task_id, attempt) DO NOTHING
    RETURNING task_id, attempt
), no_more_tasks AS (
    DELETE FROM celery_pgbg.bgworker
    WHERE task_id = %(task_id)s::text
)
SELECT
    live.atomic, live.pid, live.application_name,
    pg_notify('celery_pgbg_outcome', live.attempt || ' ' || live.task_id)
FROM live
LEFT JOIN stored USING (task_id, attempt)
WHERE stored.task_id IS NOT NULL OR NOT live.atomic
