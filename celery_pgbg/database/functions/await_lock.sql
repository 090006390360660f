-- Take an advisory lock of an attempt until the end of this transaction. Waits while sessions of its owner hold it.
-- Returns false if a foreign role holds it, because that may last for ever.
CREATE OR REPLACE FUNCTION celery_pgbg.await_lock(key bigint, owner regrole) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    timeout CONSTANT pg_catalog.text := pg_catalog.current_setting('lock_timeout');
    has_it boolean := pg_catalog.pg_try_advisory_xact_lock(key);
    is_strange boolean := false;
BEGIN
    WHILE NOT has_it AND NOT is_strange LOOP
        PERFORM pg_catalog.set_config('lock_timeout', '2s', true);
        BEGIN
            PERFORM pg_catalog.pg_advisory_xact_lock(key);
            has_it := true;
        EXCEPTION WHEN lock_not_available THEN
            is_strange := celery_pgbg.stranger(key, owner) IS NOT NULL;
        END;
        PERFORM pg_catalog.set_config('lock_timeout', timeout, true);
    END LOOP;
    RETURN has_it;
END;
$$;
