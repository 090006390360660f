-- The call that runs an attempt in a background worker, for the transaction that asks.
CREATE OR REPLACE FUNCTION celery_pgbg.run_call(
    gate_key bigint,
    is_first boolean,
    task_id text,
    attempt integer,
    preamble text,
    statement text,
    returns text,
    role_name text,
    max_result_bytes bigint,
    notify boolean
) RETURNS text
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN format(
        'SELECT celery_pgbg.run_v1(%L, %s, %L, %s, %s, %L, %L, %L, %L, %L, %s, %L)',
        task_id, attempt, pg_current_xact_id(), gate_key,
        celery_pgbg.lock_key('attempt', attempt || ' ' || task_id), is_first, preamble,
        statement, returns, role_name, max_result_bytes, notify
    );
END;
$$;
