-- The attempts that run now in this database, and their processes: all other code asks this function.
--
-- A background worker is identified by facts that no statement can change. One in a transaction has the recorded PID
-- and holds the attempt's advisory lock, a transaction-level lock, which only the end of the transaction releases. One
-- whose statement stands alone has the recorded PID, and was seen running at a recorded moment; its launching session
-- holds a lock. A reusable one writes its order into its row before it begins the order, and the row stays until it
-- takes the next order.
--
-- State: running; starting (its process exists but has not begun the task); waiting (an order that no background
-- worker has taken); attended (a statement that stands alone; its launching session lives, and its background worker
-- begins or has just ended); unknown (a process with that PID exists, but this role may not see which); launched (in
-- the last seconds; its process may not be visible yet).
--
-- A plain query, so that the caller's conditions are applied first.
CREATE OR REPLACE FUNCTION celery_pgbg.live_attempts()
RETURNS TABLE (task_id text, attempt integer, owner regrole, atomic boolean, pid integer, state text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT DISTINCT ON (live.task_id, live.attempt, live.owner)
        live.task_id, live.attempt, live.owner, live.atomic, live.pid, live.state
    FROM (
        SELECT
            e.task_id, e.attempt, e.owner, e.atomic, e.pid,
            CASE
                WHEN held.granted OR process.backend_start <= e.seen_at THEN 'running'
                WHEN e.atomic THEN 'starting'
                ELSE 'unknown'
            END AS state,
            1 AS place
        FROM pg_catalog.pg_stat_activity AS process
        JOIN celery_pgbg.execution AS e ON e.pid = process.pid
        LEFT JOIN celery_pgbg.advisory_locks() AS held
            ON held.pid = e.pid
            AND held.key = celery_pgbg.attempt_key('attempt', e.task_id, e.attempt, e.owner)
        WHERE process.datname = current_database()
            AND (process.backend_type = 'pg_background' OR process.backend_type IS NULL)
            AND CASE
                WHEN e.atomic THEN held.pid IS NOT NULL
                WHEN process.backend_start IS NULL THEN true
                WHEN e.seen_at IS NULL THEN
                    -- not seen yet: this process may be the background worker
                    process.backend_start BETWEEN e.launched_at - interval '5 seconds'
                        AND e.launched_at + interval '5 seconds'
                ELSE process.backend_start <= e.seen_at
            END
        UNION ALL
        SELECT
            b.task_id, b.attempt, b.owner, true, b.pid, CASE WHEN held.granted THEN 'running' ELSE 'starting' END, 1
        FROM celery_pgbg.bgworker AS b
        JOIN pg_catalog.pg_stat_activity AS process
            ON process.pid = b.pid AND process.datname = current_database()
            AND (process.backend_start = b.backend_start OR process.backend_start IS NULL)
        LEFT JOIN celery_pgbg.advisory_locks() AS held
            ON held.pid = b.pid
            AND held.key = celery_pgbg.attempt_key('attempt', b.task_id, b.attempt, b.owner)
        WHERE b.is_busy
        UNION ALL
        SELECT w.task_id, w.attempt, w.owner, true, NULL, 'waiting', 2
        FROM celery_pgbg.work AS w
        UNION ALL
        SELECT e.task_id, e.attempt, e.owner, e.atomic, e.pid, 'attended', 2
        FROM celery_pgbg.advisory_locks() AS held
        JOIN celery_pgbg.execution AS e
            ON NOT e.atomic
            AND e.launcher_pid = held.pid
            AND held.key = celery_pgbg.attempt_key('standalone', e.task_id, e.attempt, e.owner)
        WHERE held.granted
        UNION ALL
        SELECT e.task_id, e.attempt, e.owner, e.atomic, e.pid, 'launched', 3
        FROM celery_pgbg.execution AS e
        WHERE e.launched_at > statement_timestamp() - interval '3 seconds'
            -- a placed order has no PID; the tables of orders show it above
            AND (e.pid <> 0 OR NOT e.atomic)
    ) AS live
    ORDER BY live.task_id, live.attempt, live.owner, live.place;
END;
