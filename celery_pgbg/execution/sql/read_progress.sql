-- The progress of some attempts, if known: the report of the statement, else the server's progress of VACUUM, CREATE INDEX
-- and the like, else the recorded progress.
--
-- A report is an advisory lock of the background worker's session, see report_progress: every session sees it at
-- once, whatever has committed. Any session.
WITH reported AS MATERIALIZED (
    SELECT held.pid, max(held.objid::bigint) AS percent
    FROM pg_catalog.pg_locks AS held
    WHERE held.locktype = 'advisory' AND held.objsubid = 1 AND held.granted
        AND held.classid = celery_pgbg.progress_class()
        AND held.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
    GROUP BY held.pid
), counted AS MATERIALIZED (
    SELECT v.pid, v.datname, 'VACUUM' AS command, v.phase, v.heap_blks_scanned AS done, v.heap_blks_total AS total
    FROM pg_catalog.pg_stat_progress_vacuum AS v
    UNION ALL
    SELECT
        i.pid, i.datname, i.command, i.phase,
        CASE WHEN i.blocks_total > 0 THEN i.blocks_done ELSE i.tuples_done END,
        CASE WHEN i.blocks_total > 0 THEN i.blocks_total ELSE i.tuples_total END
    FROM pg_catalog.pg_stat_progress_create_index AS i
    UNION ALL
    SELECT c.pid, c.datname, c.command, c.phase, c.heap_blks_scanned, c.heap_blks_total
    FROM pg_catalog.pg_stat_progress_cluster AS c
    UNION ALL
    SELECT a.pid, a.datname, 'ANALYZE', a.phase, a.sample_blks_scanned, a.sample_blks_total
    FROM pg_catalog.pg_stat_progress_analyze AS a
    UNION ALL
    SELECT c.pid, c.datname, c.command, c.tuples_processed::text || ' rows', c.bytes_processed, c.bytes_total
    FROM pg_catalog.pg_stat_progress_copy AS c
)
SELECT
    execution.task_id, execution.attempt,
    CASE
        WHEN reported.percent IS NOT NULL THEN reported.percent
        WHEN counted.pid IS NOT NULL THEN CASE WHEN counted.total > 0 THEN (100 * counted.done) / counted.total END
        ELSE execution.progress_percent::bigint
    END AS percent,
    CASE
        -- the message of this report, once the launching session has recorded it
        WHEN reported.percent <> execution.progress_percent::bigint THEN NULL
        WHEN reported.percent IS NOT NULL AND execution.progress_percent IS NULL THEN NULL
        WHEN reported.percent IS NOT NULL THEN execution.progress_message
        WHEN counted.pid IS NOT NULL THEN counted.command || ': ' || counted.phase
        ELSE execution.progress_message
    END AS message,
    CASE
        WHEN reported.percent IS NOT NULL THEN 'statement'
        WHEN counted.pid IS NOT NULL THEN 'server'
        ELSE 'record'
    END AS source
FROM ROWS FROM (unnest(%(task_ids)s::text[]), unnest(%(attempts)s::integer[])) AS wanted (task_id, attempt)
JOIN celery_pgbg.execution AS execution
    ON execution.task_id = wanted.task_id AND execution.attempt = wanted.attempt
    AND execution.owner = (SELECT celery_pgbg.owner())
LEFT JOIN reported ON reported.pid = execution.pid
LEFT JOIN counted ON counted.pid = execution.pid AND counted.datname = current_database()
WHERE reported.pid IS NOT NULL OR counted.pid IS NOT NULL OR execution.progress_percent IS NOT NULL
