-- The materialised views of some schemas, NULL for all, each after those that it reads, directly or through views;
-- and whether it can be refreshed without locking readers out: it has rows, and a unique index on columns only.
CREATE OR REPLACE FUNCTION celery_pgbg.materialized_views(schemas text[])
RETURNS TABLE (name text, may_be_concurrent boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing CONSTANT text := (
        SELECT min(given.name) FROM unnest(schemas) AS given (name)
        WHERE NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = given.name)
    );
BEGIN
    IF missing IS NOT NULL THEN
        RAISE invalid_schema_name USING MESSAGE = format('schema "%s" does not exist', missing);
    END IF;
    RETURN QUERY
    WITH RECURSIVE reads AS (
        SELECT DISTINCT rule.ev_class AS reader, d.refobjid AS source
        FROM pg_depend AS d
        JOIN pg_rewrite AS rule ON rule.oid = d.objid
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
            AND d.refobjid <> rule.ev_class
    ), placed AS (
        SELECT c.oid, 0 AS depth FROM pg_class AS c WHERE c.relkind IN ('m', 'v')
        UNION
        -- views cannot read themselves, so this ends
        SELECT reads.reader, placed.depth + 1 FROM placed JOIN reads ON reads.source = placed.oid
    )
    SELECT
        format('%I.%I', n.nspname, c.relname),
        c.relispopulated AND EXISTS (
            SELECT FROM pg_index AS i
            WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
        )
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'm' AND (schemas IS NULL OR n.nspname = ANY (schemas))
    ORDER BY (SELECT max(placed.depth) FROM placed WHERE placed.oid = c.oid), n.nspname, c.relname;
END;
$$;
