-- Call a procedure within a query, which gives its results as a row: in a function a CALL gives none. The caller names
-- the columns. With its rights and its search path only.
CREATE OR REPLACE FUNCTION celery_pgbg.call_procedure(call pg_catalog.text) RETURNS pg_catalog.record
LANGUAGE plpgsql
AS $$
DECLARE
    results pg_catalog.record;
BEGIN
    EXECUTE call INTO results;
    RETURN results;
END;
$$;
