-- The ends of a split's ranges. The first of its tasks decides them, and the others wait. NULL: nothing is decided yet,
-- and this transaction must decide.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_split_bounds(split_id text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(celery_pgbg.lock_key('split', celery_pgbg.owner()::oid || ' ' || split_id));
    RETURN (
        SELECT s.bounds FROM celery_pgbg.walk_split AS s
        WHERE s.split_id = walk_split_bounds.split_id AND s.owner = celery_pgbg.owner()
    );
END;
$$;
