-- Refresh the materialised views of some schemas, NULL for all, in the order of their dependencies, each in a
-- transaction of its own; without locking readers out where that is possible. Stands alone, since it commits.
CREATE OR REPLACE PROCEDURE celery_pgbg.refresh_materialized_views(schemas text[])
LANGUAGE plpgsql
AS $$
DECLARE
    view pg_catalog.record;
BEGIN
    FOR view IN SELECT v.name, v.may_be_concurrent FROM celery_pgbg.materialized_views(schemas) AS v LOOP
        EXECUTE pg_catalog.format(
            'REFRESH MATERIALIZED VIEW %s %s', CASE WHEN view.may_be_concurrent THEN 'CONCURRENTLY' ELSE '' END, view.name
        );
        COMMIT;
    END LOOP;
END;
$$;
