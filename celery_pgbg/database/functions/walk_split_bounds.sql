-- Where the ranges of a split end, as decided by the first of its tasks, which others wait for; NULL while
-- nothing is decided: this transaction is to decide it.
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
