-- Take a walk for an attempt and, the first time, find out where it begins and ends. Returns the turn to do batches
-- with, and the walk with its key described.
--
-- Runs with the caller's search path, and reads the table as the task's role.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_start(
    task_id text, attempt integer, role_name text, INOUT walk jsonb, OUT turn integer
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    launching_role CONSTANT pg_catalog.text := pg_catalog.current_setting('role');
    table_name CONSTANT pg_catalog.text := walk OPERATOR(pg_catalog.->>) 'table';
    split CONSTANT pg_catalog.jsonb := pg_catalog.jsonb_extract_path(walk, 'split');
    is_prepared boolean;
    table_oid pg_catalog.oid;
    key pg_catalog.jsonb;
    bounds pg_catalog.jsonb;
    range_begin pg_catalog.text[];
    range_end pg_catalog.text[];
    first_key pg_catalog.text[];
    is_empty boolean;
BEGIN
    SELECT taken.turn, taken.is_prepared INTO turn, is_prepared
    FROM celery_pgbg.walk_take(task_id, attempt, walk) AS taken;
    IF role_name IS NOT NULL THEN
        PERFORM pg_catalog.set_config('role', role_name, true);
    END IF;
    table_oid := pg_catalog.to_regclass(table_name)::pg_catalog.oid;
    IF role_name IS NOT NULL THEN
        PERFORM pg_catalog.set_config('role', launching_role, true);
    END IF;
    key := celery_pgbg.walk_key(
        table_oid, table_name,
        ARRAY(SELECT pg_catalog.jsonb_array_elements_text(pg_catalog.jsonb_extract_path(walk, 'key')))
    );
    walk := walk OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('described', key);
    IF is_prepared THEN
        RETURN;
    END IF;

    IF (walk OPERATOR(pg_catalog.->>) 'split') IS NOT NULL THEN
        bounds := celery_pgbg.walk_split_bounds(split OPERATOR(pg_catalog.->>) 'id');
        IF bounds IS NULL THEN
            IF role_name IS NOT NULL THEN
                PERFORM pg_catalog.set_config('role', role_name, true);
            END IF;
            EXECUTE celery_pgbg.walk_split_query(key, (split OPERATOR(pg_catalog.->>) 'parts')::pg_catalog.int4)
            INTO bounds;
            IF role_name IS NOT NULL THEN
                PERFORM pg_catalog.set_config('role', launching_role, true);
            END IF;
        END IF;
        SELECT part.range_begin, part.range_end, part.is_empty INTO range_begin, range_end, is_empty
        FROM celery_pgbg.walk_part(split, bounds) AS part;
    END IF;
    IF is_empty IS NOT TRUE THEN
        SELECT e.edge INTO first_key
        FROM celery_pgbg.walk_edge(celery_pgbg.walk_edge_query(key, range_begin, range_end, 1, false), role_name) AS e;
        IF range_end IS NULL THEN
            SELECT e.edge INTO range_end
            FROM celery_pgbg.walk_edge(celery_pgbg.walk_edge_query(key, range_begin, NULL, 1, true), role_name) AS e;
        END IF;
    END IF;
    PERFORM celery_pgbg.walk_prepare(walk, key, range_begin, first_key, range_end);
END;
$$;
