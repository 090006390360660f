-- The task whose statement runs this function: for triggers that record the source of a change. All NULL without a
-- task.
--
-- Reads the text that the background worker was launched with, which no statement can change. For a statement that
-- stands alone, reads the record of its background worker, which exists a moment after the start. Only the record has
-- the name; a transaction with an older snapshot (repeatable read, serializable) does not see the record, and gets NULL.
-- Runs as the owner, since the task's role may not read the records.
CREATE OR REPLACE FUNCTION celery_pgbg.current_task(OUT task_id text, OUT task_name text, OUT attempt integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on
AS $$
#variable_conflict use_variable
DECLARE
    call CONSTANT text := left(current_query(), 40000);
    parts text[];
    inline jsonb;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_stat_activity AS process
        WHERE process.pid = pg_backend_pid() AND process.backend_type = 'pg_background'
    ) THEN
        -- the fixture for tests, which runs statements in the test's own session
        inline := nullif(current_setting('celery_pgbg.task', true), '')::jsonb;
        task_id := inline ->> 'task_id';
        task_name := inline ->> 'task_name';
        attempt := inline ->> 'attempt';
        RETURN;
    END IF;
    parts := regexp_match(call, '^(?:SELECT|CALL) celery_pgbg\.(?:run|walk)_v1\( ?(E?)''((?:[^'']|'''')*)'', ([0-9]+),');
    IF parts IS NOT NULL THEN
        task_id := replace(parts[2], '''''', '''');
        IF parts[1] = 'E' THEN
            task_id := replace(task_id, '\\', '\');
        END IF;
        attempt := parts[3];
    ELSIF call LIKE 'CALL celery_pgbg.serve_v1(%' THEN
        SELECT b.task_id, b.attempt INTO task_id, attempt
        FROM celery_pgbg.bgworker AS b WHERE b.id = substring(call FROM '\(([0-9]+)')::bigint;
    ELSE
        SELECT e.task_id, e.attempt INTO task_id, attempt
        FROM celery_pgbg.execution AS e
        JOIN pg_stat_activity AS process ON process.pid = e.pid AND process.backend_start <= e.seen_at
        WHERE e.pid = pg_backend_pid() AND NOT e.atomic
        ORDER BY e.launched_at DESC
        LIMIT 1;
    END IF;
    SELECT e.task_name INTO task_name FROM celery_pgbg.execution AS e
    WHERE e.task_id = current_task.task_id AND e.attempt = current_task.attempt
        AND (e.pid = pg_backend_pid() OR call LIKE 'CALL celery_pgbg.serve_v1(%')
    ORDER BY e.launched_at DESC
    LIMIT 1;
END;
$$;
