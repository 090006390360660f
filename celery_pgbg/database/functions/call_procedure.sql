-- Call a procedure within a query, with its results as a row: within a function a CALL returns no row. The caller
-- names the columns. Only the caller's rights and search path are used.
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
