-- Whether the transaction that launched a background worker committed, and the attempt has no outcome yet.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_may_run(task_id text, attempt integer, launch_xid xid8) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pg_xact_status(launch_xid) IS NOT DISTINCT FROM 'committed' AND NOT EXISTS (
        SELECT FROM celery_pgbg.outcome AS o
        WHERE o.task_id = walk_may_run.task_id AND o.attempt = walk_may_run.attempt AND o.owner = celery_pgbg.owner()
    );
END;
$$;
