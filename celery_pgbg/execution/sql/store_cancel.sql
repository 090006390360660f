-- Store a cancel as the outcome of an attempt without an outcome, so that it can neither be launched nor commit; a
-- waiting order is deleted. After lock_delivery, in its transaction, but with a snapshot of its own.
WITH stored AS (
    INSERT INTO celery_pgbg.outcome (task_id, attempt, succeeded, pid, started_at, finished_at, settled_as, sqlstate, message)
    VALUES (
        %(task_id)s::text, %(attempt)s::integer, false, 0,
        coalesce(
            (
                SELECT e.launched_at FROM celery_pgbg.execution AS e
                WHERE e.task_id = %(task_id)s::text AND e.attempt = %(attempt)s::integer
                    AND e.owner = (SELECT celery_pgbg.owner())
            ),
            clock_timestamp()
        ),
        clock_timestamp(), %(reason)s::text, '57014', %(message)s::text
    )
    ON CONFLICT (task_id, attempt, owner) DO NOTHING
    RETURNING task_id, attempt, owner
), no_order AS (
    DELETE FROM celery_pgbg.work
    USING stored
    WHERE work.task_id = stored.task_id AND work.attempt = stored.attempt AND work.owner = stored.owner
)
SELECT pg_notify('celery_pgbg_outcome', attempt || ' ' || task_id) FROM stored
