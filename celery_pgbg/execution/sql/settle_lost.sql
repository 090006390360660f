-- Settle statements that stood alone and left no outcome, where background worker and launching session are both
-- gone: each gets an outcome that says that it is lost. Returns them. Any session.
WITH lost AS (
    SELECT e.task_id, e.attempt, e.owner, e.pid, e.launched_at
    FROM celery_pgbg.execution AS e
    WHERE NOT e.atomic
        AND e.launched_at < (statement_timestamp() - interval '5 seconds')
        AND (%(task_id)s::text IS NULL OR e.task_id = %(task_id)s::text)
        AND NOT EXISTS (
            SELECT FROM celery_pgbg.outcome AS o
            WHERE o.task_id = e.task_id AND o.attempt = e.attempt AND o.owner = e.owner
        )
        AND (e.task_id, e.attempt, e.owner) <> ALL (
            SELECT live.task_id, live.attempt, live.owner FROM celery_pgbg.live_attempts() AS live
        )
), stored AS (
    INSERT INTO celery_pgbg.outcome (
        task_id, attempt, owner, succeeded, pid, started_at, finished_at, settled_as, sqlstate, message
    )
    SELECT
        task_id, attempt, owner, false, pid, launched_at, clock_timestamp(), 'lost',
        -- transaction resolution unknown
        '08007', %(message)s::text
    FROM lost
    ON CONFLICT (task_id, attempt, owner) DO NOTHING
    RETURNING task_id, attempt
)
SELECT task_id, attempt, pg_notify('celery_pgbg_outcome', attempt || ' ' || task_id) AS notified FROM stored
