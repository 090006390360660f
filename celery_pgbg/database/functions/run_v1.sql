-- Run one attempt's statement in a background worker; its effects and its outcome commit together.
--
-- Waits for the gate, ends quietly where the launching transaction rolled back or another worker
-- left an outcome, and else runs the statement in a subtransaction. An error rolls that back and is
-- itself the outcome. A cancel or a time limit is not caught: it leaves no outcome at all.
--
-- Returns NULL, as text because a launcher must name the type to read an error from a handle.
--
-- Whether the launching transaction committed is asked of the transaction log, not of a table,
-- because under REPEATABLE READ this transaction's snapshot is older than that commit.
CREATE OR REPLACE FUNCTION celery_pgbg.run_v1(
    task_id text,
    attempt integer,
    launch_xid xid8,
    preamble text,
    statement text,
    returns text,
    role_name text,
    max_result_bytes bigint,
    notify boolean
) RETURNS text
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    launching_role CONSTANT text := current_setting('role');
    outcome celery_pgbg.outcome;
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(celery_pgbg.lock_key('gate', launch_xid::text));
    IF pg_catalog.pg_xact_status(launch_xid) IS DISTINCT FROM 'committed' THEN
        RETURN NULL;
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock(celery_pgbg.lock_key('attempt', attempt || ' ' || task_id));
    IF EXISTS (SELECT FROM celery_pgbg.outcome AS o WHERE o.task_id = run_v1.task_id AND o.attempt = run_v1.attempt)
    THEN
        RETURN NULL;
    END IF;

    outcome.started_at := pg_catalog.clock_timestamp();
    BEGIN
        IF role_name IS NOT NULL THEN
            PERFORM pg_catalog.set_config('role', role_name, true);
        END IF;
        IF preamble IS NOT NULL THEN
            EXECUTE preamble;
        END IF;
        outcome := celery_pgbg.collect_v1(outcome, statement, returns, max_result_bytes);
        SET CONSTRAINTS ALL IMMEDIATE;
        PERFORM pg_catalog.set_config('role', launching_role, true);
        outcome.succeeded := true;
    EXCEPTION WHEN assert_failure OR OTHERS THEN
        outcome.succeeded := false;
        GET STACKED DIAGNOSTICS
            outcome.sqlstate = RETURNED_SQLSTATE,
            outcome.message = MESSAGE_TEXT;
        DECLARE
            detail text;
            hint text;
            context text;
            schema_name text;
            table_name text;
            column_name text;
            datatype_name text;
            constraint_name text;
        BEGIN
            GET STACKED DIAGNOSTICS
                detail = PG_EXCEPTION_DETAIL,
                hint = PG_EXCEPTION_HINT,
                context = PG_EXCEPTION_CONTEXT,
                schema_name = SCHEMA_NAME,
                table_name = TABLE_NAME,
                column_name = COLUMN_NAME,
                datatype_name = PG_DATATYPE_NAME,
                constraint_name = CONSTRAINT_NAME;
            outcome.error_fields := pg_catalog.jsonb_build_object(
                'message_detail', nullif(detail, ''), 'message_hint', nullif(hint, ''),
                'context', nullif(context, ''), 'schema_name', nullif(schema_name, ''),
                'table_name', nullif(table_name, ''), 'column_name', nullif(column_name, ''),
                'datatype_name', nullif(datatype_name, ''), 'constraint_name', nullif(constraint_name, '')
            );
        END;
    END;

    INSERT INTO celery_pgbg.outcome (
        task_id, attempt, succeeded, pid, started_at, finished_at, returns, row_count,
        column_names, column_types, row_texts, sqlstate, message, error_fields
    ) VALUES (
        task_id, attempt, outcome.succeeded, pg_catalog.pg_backend_pid(), outcome.started_at,
        pg_catalog.clock_timestamp(), outcome.returns, outcome.row_count, outcome.column_names,
        outcome.column_types, outcome.row_texts, outcome.sqlstate, outcome.message, outcome.error_fields
    );
    IF notify THEN
        PERFORM pg_catalog.pg_notify('celery_pgbg_outcome', attempt || ' ' || task_id);
    END IF;
    RETURN NULL;
END;
$$;
