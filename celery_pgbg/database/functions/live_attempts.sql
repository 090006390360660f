-- Which attempts run now in this database, and where: the one answer that everything asks for.
--
-- A background worker is known by what no statement can change. One in a transaction has the PID on record and holds
-- the attempt's advisory lock, a lock of its transaction, which nothing but the transaction's end gives back. One whose
-- statement stands alone has the PID on record and was there at a moment at which it was seen, which is on record as
-- well; the session that launched it holds a lock. A reusable one says in its row which order it has taken, before it
-- begins with it, and until it takes the next.
--
-- State: running; starting (its process is there, and has not begun the task); waiting (an order that nobody has taken);
-- attended (stands alone, and its launching session lives: its worker begins or has just ended); unknown (a process of
-- that PID is there, and this role may not see which); launched (in the last seconds; its process may not show itself yet).
--
-- A plain query, so that what its caller asks for comes first.
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
                    -- nobody has seen it: it may be that one
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
            -- an order that was placed has none, and shows itself elsewhere
            AND (e.pid <> 0 OR NOT e.atomic)
    ) AS live
    ORDER BY live.task_id, live.attempt, live.owner, live.place;
END;
