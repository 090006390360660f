-- Put the constraints that are deferred at the start of a transaction back into that state, after a
-- SET CONSTRAINTS ALL IMMEDIATE. Ends with the transaction.
DO $$
DECLARE
    names text;
BEGIN
    SELECT string_agg(DISTINCT format('%I.%I', nspname, conname), ', ') INTO names
    FROM pg_catalog.pg_constraint
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid = connamespace
    WHERE condeferred;
    IF names IS NOT NULL THEN
        EXECUTE 'SET CONSTRAINTS ' || names || ' DEFERRED';
    END IF;
END;
$$
