-- The state of placed orders; on a launcher's session. Records which background worker runs each taken order, and
-- marks background workers whose processes are gone as stopped.
--
-- State: waiting, taken (with the handle of the background worker), gone (likewise, but its process is gone), absent (no
-- order, and no background worker has taken it), finished (there is an outcome). Also returns, of the background workers
-- that may take the order: their recorded number, the number of those that are idle or starting, the number of orders that
-- they have taken in all, and the time since they took the latest.
CREATE OR REPLACE FUNCTION celery_pgbg.look_at_work(task_ids text[], attempts integer[], pools text[])
RETURNS TABLE (
    number integer, state text, pid integer, cookie bigint, workers integer, free_workers integer, turns bigint,
    taken_ms_ago integer
)
LANGUAGE plpgsql
-- as plan_once.sql says, for this call only
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    own CONSTANT pg_catalog.regrole := celery_pgbg.owner();
    own_role CONSTANT pg_catalog.regrole := pg_catalog.quote_ident(CURRENT_USER);
    looked_at CONSTANT timestamp with time zone := pg_catalog.clock_timestamp();
    processes CONSTANT integer[] := ARRAY(
        SELECT process.pid FROM pg_catalog.pg_stat_get_activity(NULL) AS process
        -- a process that this role may not see may live
        WHERE (process.backend_type OPERATOR(pg_catalog.=) 'pg_background' OR process.backend_type IS NULL)
            AND process.datid OPERATOR(pg_catalog.=) (
            SELECT d.oid FROM pg_catalog.pg_database AS d
            WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        )
    );
BEGIN
    PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
    UPDATE celery_pgbg.bgworker AS b SET is_stopped = true
    WHERE b.role OPERATOR(pg_catalog.=) own_role AND b.pool OPERATOR(pg_catalog.=) ANY (pools) AND NOT b.is_stopped
        AND b.pid OPERATOR(pg_catalog.<>) ALL (processes)
        -- A process that began a moment ago is not visible yet. One that has written its row was visible then.
        AND b.changed_at OPERATOR(pg_catalog.<) (
            looked_at OPERATOR(pg_catalog.-) CASE WHEN b.backend_start IS NULL THEN '3 s'::interval ELSE '0' END
        );
    -- the latest that took the order, unless placed again
    UPDATE celery_pgbg.execution AS e SET pid = taker.pid, cookie = taker.cookie, launcher_pid = taker.launcher_pid
    FROM (
        SELECT DISTINCT ON (b.task_id, b.attempt) b.task_id, b.attempt, b.pid, b.cookie, b.launcher_pid
        FROM ROWS FROM (pg_catalog.unnest(task_ids), pg_catalog.unnest(attempts)) AS a (task_id, attempt)
        JOIN celery_pgbg.bgworker AS b
            ON b.task_id OPERATOR(pg_catalog.=) a.task_id AND b.attempt OPERATOR(pg_catalog.=) a.attempt
            AND b.owner OPERATOR(pg_catalog.=) own
        ORDER BY b.task_id, b.attempt, b.changed_at DESC
    ) AS taker
    WHERE e.task_id OPERATOR(pg_catalog.=) taker.task_id AND e.attempt OPERATOR(pg_catalog.=) taker.attempt
        AND e.owner OPERATOR(pg_catalog.=) own
        AND (e.pid OPERATOR(pg_catalog.<>) taker.pid OR e.cookie OPERATOR(pg_catalog.<>) taker.cookie)
        AND NOT EXISTS (
            SELECT FROM celery_pgbg.work AS w
            WHERE w.task_id OPERATOR(pg_catalog.=) e.task_id AND w.attempt OPERATOR(pg_catalog.=) e.attempt
                AND w.owner OPERATOR(pg_catalog.=) own
        );
    RETURN QUERY
    SELECT
        a.place::integer,
        CASE
            -- one by one, as read_outcomes says
            WHEN (
                SELECT true FROM celery_pgbg.outcome AS o
                WHERE o.task_id OPERATOR(pg_catalog.=) a.task_id AND o.attempt OPERATOR(pg_catalog.=) a.attempt
                    AND o.owner OPERATOR(pg_catalog.=) own
            ) THEN 'finished'
            WHEN (
                SELECT true FROM celery_pgbg.work AS w
                WHERE w.task_id OPERATOR(pg_catalog.=) a.task_id AND w.attempt OPERATOR(pg_catalog.=) a.attempt
                    AND w.owner OPERATOR(pg_catalog.=) own
            ) THEN 'waiting'
            WHEN taker.pid OPERATOR(pg_catalog.=) ANY (processes) THEN 'taken'
            WHEN taker.pid IS NOT NULL THEN 'gone'
            ELSE 'absent'
        END,
        taker.pid, taker.cookie, pool.workers, pool.free_workers, pool.turns, pool.taken_ms_ago
    FROM ROWS FROM (
        pg_catalog.unnest(task_ids), pg_catalog.unnest(attempts), pg_catalog.unnest(pools)
    ) WITH ORDINALITY AS a (task_id, attempt, pool, place)
    LEFT JOIN LATERAL (
        SELECT b.pid, b.cookie FROM celery_pgbg.bgworker AS b
        -- one that took the order since is recorded at the next look
        JOIN celery_pgbg.execution AS e
            ON e.task_id OPERATOR(pg_catalog.=) b.task_id AND e.attempt OPERATOR(pg_catalog.=) b.attempt
            AND e.owner OPERATOR(pg_catalog.=) b.owner
            AND e.pid OPERATOR(pg_catalog.=) b.pid AND e.cookie OPERATOR(pg_catalog.=) b.cookie
        WHERE b.task_id OPERATOR(pg_catalog.=) a.task_id AND b.attempt OPERATOR(pg_catalog.=) a.attempt
            AND b.owner OPERATOR(pg_catalog.=) own
        ORDER BY b.changed_at DESC
        LIMIT 1
    ) AS taker ON true
    CROSS JOIN LATERAL (
        SELECT
            pg_catalog.count(*)::integer AS workers,
            (pg_catalog.count(*) FILTER (WHERE NOT b.is_busy))::integer AS free_workers,
            pg_catalog.sum(b.turn)::bigint AS turns,
            (EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-)
                pg_catalog.max(b.changed_at) FILTER (WHERE b.is_busy)) OPERATOR(pg_catalog.*) 1000)::integer AS taken_ms_ago
        FROM celery_pgbg.bgworker AS b
        WHERE b.role OPERATOR(pg_catalog.=) own_role AND b.pool OPERATOR(pg_catalog.=) a.pool AND NOT b.is_stopped
    ) AS pool;
END;
$$;
