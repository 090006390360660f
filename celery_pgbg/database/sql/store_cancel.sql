-- Leave a cancel as the outcome of an attempt that has none, so that it can neither be launched nor commit
-- any more, and hand nothing more over to a reusable worker that runs it. After lock_delivery, in its
-- transaction, but with a snapshot of its own.
WITH stored AS (
    INSERT INTO celery_pgbg.outcome (task_id, attempt, succeeded, pid, started_at, finished_at, sqlstate, message)
    VALUES (
        %(task_id)s::text, %(attempt)s::integer, false, 0, clock_timestamp(), clock_timestamp(), '57014',
        %(message)s::text
    )
    ON CONFLICT (task_id, attempt) DO NOTHING
    RETURNING task_id, attempt
), no_more_tasks AS (
    DELETE FROM celery_pgbg.bgworker
    USING stored
    WHERE bgworker.task_id = stored.task_id AND bgworker.attempt = stored.attempt
)
SELECT pg_notify('celery_pgbg_outcome', attempt || ' ' || task_id) FROM stored
