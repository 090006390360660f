-- Store the error that ended a statement as its outcome: long fields are clipped, and the context is as if a client
-- had sent the statement. Errors of run_v1 itself, which have our table's name, get their text here.
CREATE OR REPLACE FUNCTION celery_pgbg.store_failure(
    task_id pg_catalog.text,
    attempt integer,
    owner pg_catalog.regrole,
    started_at timestamp with time zone,
    error pg_catalog.record,
    executed pg_catalog.text[],
    returns pg_catalog.text,
    max_result_bytes bigint,
    never_opened boolean
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
BEGIN
    -- a cursor that could not be opened: invalid_cursor_definition
    IF never_opened AND error.sqlstate OPERATOR(pg_catalog.=) '42P11' THEN
        error.sqlstate := '42601';
        error.table_name := 'celery_pgbg.outcome';
    END IF;
    IF error.table_name OPERATOR(pg_catalog.=) 'celery_pgbg.outcome' THEN
        CASE
            WHEN error.sqlstate OPERATOR(pg_catalog.=) '54000' THEN
                error.message := pg_catalog.concat('the result is larger than pgbg_max_result_bytes (', max_result_bytes, ' bytes)');
                error.message_detail := 'The statement was rolled back.';
                error.message_hint := 'Return fewer rows, write them to a table, or raise pgbg_max_result_bytes.';
            WHEN error.sqlstate OPERATOR(pg_catalog.=) '42601' THEN
                error.message := pg_catalog.concat('the task has returns="', returns, '", but its statement returns no rows');
                error.message_hint := '';
                error.table_name := '';
            WHEN error.sqlstate OPERATOR(pg_catalog.=) '0A000' THEN
                error.message := 'a statement cannot set its own statement_timeout';
                error.message_hint := pg_catalog.concat(
                    'Give the task settings={"statement_timeout": "', error.message_hint, '"}.'
                );
                error.table_name := '';
            ELSE
                NULL;
        END CASE;
    END IF;
    error.context := celery_pgbg.own_context(
        error.context,
        -- the option role, which the launching role may not take
        pg_catalog.array_append(executed, 'SELECT pg_catalog.set_config(''role'', role_name, true)'::pg_catalog.text),
        '{SELECT pg_catalog.array_agg(w.item) FILTER}'
    );
    INSERT INTO celery_pgbg.outcome (
        task_id, attempt, owner, succeeded, pid, started_at, finished_at, returns, sqlstate, message, error_fields
    ) VALUES (
        task_id, attempt, owner, false, pg_catalog.pg_backend_pid(), started_at, pg_catalog.clock_timestamp(), returns,
        error.sqlstate, celery_pgbg.clipped(error.message),
        (
            SELECT pg_catalog.jsonb_object_agg(field.key, celery_pgbg.clipped(field.value))
            FROM pg_catalog.jsonb_each_text(pg_catalog.to_jsonb(error)) AS field
            WHERE field.key OPERATOR(pg_catalog.<>) ALL ('{sqlstate,message}'::pg_catalog.text[])
        )
    );
END;
$$;
