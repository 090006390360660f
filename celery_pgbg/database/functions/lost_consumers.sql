-- The consumers of the broker whose sessions have ended, and those whose leases are over. Their messages wait for
-- another consumer, which will take them when it tends the broker, see tend_broker.
--
-- A lock of a stranger proves nothing.
CREATE OR REPLACE FUNCTION celery_pgbg.lost_consumers() RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT c.id
    FROM celery_pgbg.consumer AS c
    WHERE CASE
        WHEN c.leased_until IS NULL THEN NOT EXISTS (
            SELECT FROM celery_pgbg.advisory_locks() AS held
            WHERE held.granted AND held.key = celery_pgbg.lock_key('consumer', c.id::text)
        ) OR celery_pgbg.stranger(celery_pgbg.lock_key('consumer', c.id::text)) IS NOT NULL
        ELSE c.leased_until < clock_timestamp()
    END;
END;
$$;
