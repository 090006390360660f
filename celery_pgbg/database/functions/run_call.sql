-- The call that runs an attempt in a background worker launched by this transaction.
CREATE OR REPLACE FUNCTION celery_pgbg.run_call(
    is_first boolean,
    task_id text,
    attempt integer,
    preamble text,
    statement text,
    is_plain_query boolean,
    returns text,
    role_name text,
    max_result_bytes bigint,
    notify boolean,
    message_id bigint DEFAULT NULL,
    task_meta jsonb DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    own CONSTANT pg_catalog.regrole := celery_pgbg.owner();
BEGIN
    RETURN pg_catalog.format(
        'SELECT celery_pgbg.run_v1(%L, %s, %L, %L, %s, %L, %L, %L, %L, %L, %L, %s, %L, %L, %L)',
        task_id, attempt, own::pg_catalog.oid, pg_catalog.pg_current_xact_id(),
        celery_pgbg.attempt_key('attempt', task_id, attempt, own), is_first, preamble,
        statement, is_plain_query, returns, role_name, max_result_bytes, notify, message_id, task_meta
    );
END;
$$;
