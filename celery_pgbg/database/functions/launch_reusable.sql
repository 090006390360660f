-- Launch a background worker that takes the orders of a pool, one after another. Runs on a launcher's session, as its own
-- transaction; the background worker waits for the end of this transaction.
--
-- The background worker inherits no time limit of a statement, because its whole life is one statement.
CREATE OR REPLACE FUNCTION celery_pgbg.launch_reusable(
    extension_schema text,
    launch_function text,
    queue_bytes integer,
    pool text,
    application_name text,
    settings jsonb,
    OUT pid integer,
    OUT cookie bigint
)
LANGUAGE plpgsql
AS $$
DECLARE
    bgworker_id bigint;
BEGIN
    -- those that were stopped and did not end by themselves
    DELETE FROM celery_pgbg.bgworker AS b
    WHERE b.role OPERATOR(pg_catalog.=) pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole
        AND b.is_stopped
        AND b.changed_at OPERATOR(pg_catalog.<) (
            pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '1 minute'::interval
        )
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_stat_get_activity(b.pid) AS process
            WHERE process.datid OPERATOR(pg_catalog.=) (
                SELECT d.oid FROM pg_catalog.pg_database AS d
                WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
            )
        );
    INSERT INTO celery_pgbg.bgworker AS b (pool) VALUES (launch_reusable.pool) RETURNING b.id INTO bgworker_id;
    IF settings IS NOT NULL THEN
        PERFORM pg_catalog.set_config(s.key, s.value, true) FROM pg_catalog.jsonb_each_text(settings) AS s;
    END IF;
    PERFORM pg_catalog.set_config('application_name', application_name, true);
    EXECUTE pg_catalog.format('SELECT pid, cookie FROM %I.%I($1, $2)', extension_schema, launch_function)
    INTO pid, cookie
    -- both arguments, so that no other function fits better
    USING
        pg_catalog.format(
            'CALL celery_pgbg.serve_v1(%s, %L, %L)', bgworker_id, pool, pg_catalog.pg_current_xact_id()
        ),
        queue_bytes;
    UPDATE celery_pgbg.bgworker AS b SET pid = launch_reusable.pid, cookie = launch_reusable.cookie
    WHERE b.id OPERATOR(pg_catalog.=) bgworker_id
        AND b.role OPERATOR(pg_catalog.=) pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole;
END;
$$;
