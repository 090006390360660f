-- Do the next batch of a walk, if there is one and nothing prevents it now. Returns whether the walk is over or no
-- longer ours, and the seconds until the next look.
--
-- Runs the texts of the task with the caller's search path and as the task's role; does its own work as the role that
-- launched.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_batch(
    task_id text,
    attempt integer,
    walk jsonb,
    turn integer,
    role_name text,
    may_wait boolean,
    OUT is_left boolean,
    OUT is_over boolean,
    OUT pause_seconds double precision
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    launching_role CONSTANT pg_catalog.text := pg_catalog.current_setting('role');
    began_at CONSTANT pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    condition CONSTANT pg_catalog.text := walk OPERATOR(pg_catalog.->>) 'wait_while';
    waits_for pg_catalog.text;
    after pg_catalog.text[];
    range_end pg_catalog.text[];
    up_to pg_catalog.text[];
    edge pg_catalog.text[];
    batch_rows integer;
    edge_rows bigint;
    row_count bigint := 0;
    edge_query pg_catalog.text;
    statement pg_catalog.text;
    holds boolean;
BEGIN
    SELECT n.is_left, n.is_over, n.waits_for, n.after, n.range_end, n.batch_rows, n.edge_query
    INTO is_left, is_over, waits_for, after, range_end, batch_rows, edge_query
    FROM celery_pgbg.walk_next(task_id, attempt, walk, turn) AS n;
    IF is_left OR is_over THEN
        RETURN;
    END IF;
    IF waits_for IS NULL AND condition IS NOT NULL AND may_wait THEN
        IF role_name IS NOT NULL THEN
            PERFORM pg_catalog.set_config('role', role_name, true);
        END IF;
        EXECUTE pg_catalog.format('SELECT (%s)', condition) INTO holds;
        PERFORM pg_catalog.set_config('role', launching_role, true);
        waits_for := CASE WHEN holds THEN 'waits for its condition' END;
    END IF;
    IF waits_for IS NOT NULL AND may_wait THEN
        PERFORM celery_pgbg.walk_show(task_id, attempt, walk, waits_for);
        pause_seconds := 0.5;
        RETURN;
    END IF;

    SELECT e.edge, e.row_count INTO edge, edge_rows FROM celery_pgbg.walk_edge(edge_query, role_name) AS e;
    SELECT s.statement, s.up_to INTO statement, up_to
    FROM celery_pgbg.walk_statement(walk, after, range_end, batch_rows, edge, edge_rows) AS s;
    IF statement IS NOT NULL THEN
        IF role_name IS NOT NULL THEN
            PERFORM pg_catalog.set_config('role', role_name, true);
        END IF;
        EXECUTE statement;
        GET DIAGNOSTICS row_count = ROW_COUNT;
        -- Deferred constraints are checked here, where their errors can be caught.
        SET CONSTRAINTS ALL IMMEDIATE;
        PERFORM pg_catalog.set_config('role', launching_role, true);
    END IF;
    pause_seconds := celery_pgbg.walk_record(
        task_id, attempt, walk, up_to, COALESCE(edge_rows, 0), row_count, began_at
    );
END;
$$;
