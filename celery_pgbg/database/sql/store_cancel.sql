-- Leave a cancel as the outcome of an attempt that has none, so that it can neither be launched nor commit
-- any more, and hand nothing more over to a reusable worker that runs it. Waits for a launch of it that is
-- under way. Any session.
WITH wanted AS MATERIALIZED (
    SELECT
        %(task_id)s::text AS task_id, %(attempt)s::integer AS attempt,
        pg_advisory_xact_lock(
            celery_pgbg.lock_key('delivery', %(attempt)s::integer || ' ' || %(task_id)s::text)
        ) AS locked
), stored AS (
    INSERT INTO celery_pgbg.outcome (task_id, attempt, succeeded, pid, started_at, finished_at, sqlstate, message)
    SELECT task_id, attempt, false, 0, clock_timestamp(), clock_timestamp(), '57014', %(message)s::text
    FROM wanted
    ON CONFLICT (task_id, attempt) DO NOTHING
    RETURNING task_id, attempt
), no_more_tasks AS (
    DELETE FROM celery_pgbg.bgworker
    USING stored
    WHERE bgworker.task_id = stored.task_id AND bgworker.attempt = stored.attempt
)
SELECT pg_notify('celery_pgbg_outcome', attempt || ' ' || task_id) FROM stored
