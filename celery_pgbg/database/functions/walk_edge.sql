-- Run a query of ``walk_edge_query`` as the task's role: by index, whatever the statistics say.
--
-- With the caller's search path, which the policies of a table with row security may need.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_edge(
    query text, role_name text, OUT edge text[], OUT row_count bigint
)
LANGUAGE plpgsql VOLATILE SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    launching_role CONSTANT pg_catalog.text := pg_catalog.current_setting('role');
BEGIN
    IF role_name IS NOT NULL THEN
        PERFORM pg_catalog.set_config('role', role_name, true);
    END IF;
    EXECUTE query INTO edge, row_count;
    IF role_name IS NOT NULL THEN
        PERFORM pg_catalog.set_config('role', launching_role, true);
    END IF;
END;
$$;
