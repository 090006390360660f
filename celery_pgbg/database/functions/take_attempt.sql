-- Take the lock that shows every session which process runs an attempt. Fails if a foreign role keeps the lock, because
-- other sessions could not find or stop a background worker without it.
CREATE OR REPLACE FUNCTION celery_pgbg.take_attempt(attempt_key bigint, owner regrole) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT celery_pgbg.await_lock(attempt_key, owner) THEN
        RAISE lock_not_available USING
            MESSAGE = pg_catalog.concat(
                'a foreign session holds the advisory lock of this attempt, PID ',
                celery_pgbg.stranger(attempt_key, owner)
            ),
            DETAIL = 'The statement was not run.',
            HINT = 'End that session, and do not let its role connect to this database.';
    END IF;
END;
$$;
