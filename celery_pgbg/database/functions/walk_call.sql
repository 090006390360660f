-- The call that runs an attempt of a batched task in a background worker launched by this transaction.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_call(
    task_id text, attempt integer, walk jsonb, role_name text
) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format(
        'CALL celery_pgbg.walk_v1(%L, %s, %L, %s, %L, %L, true)',
        task_id, attempt, pg_current_xact_id(),
        celery_pgbg.attempt_key('attempt', task_id, attempt), walk, role_name
    );
END;
$$;
