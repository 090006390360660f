-- Run one attempt's statement in a background worker; its effects and its outcome commit together.
--
-- Waits for the gate, ends quietly where the launching transaction rolled back or another worker
-- left an outcome, and else runs the statement in a subtransaction. An error rolls that back and is
-- itself the outcome. A cancel or a time limit is not caught: it leaves no outcome at all.
-- Returns NULL, as text because a launcher must name the type to read an error from a handle.
--
-- Whether the launching transaction committed is asked of the transaction log, not of a table,
-- because under REPEATABLE READ this transaction's snapshot is older than that commit.
--
-- A cursor tells, without executing anything, whether the statement returns rows: opening one for
-- a statement that does not is invalid_cursor_definition. "row" and "value" go without the cursor,
-- which would rule out a parallel plan.
--
-- One function, and few expressions: each worker is a new process that plans every one of them anew.
CREATE OR REPLACE FUNCTION celery_pgbg.run_v1(
    task_id text,
    attempt integer,
    launch_xid xid8,
    gate_key bigint,
    attempt_key bigint,
    is_first boolean,
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
    -- PL/pgSQL's own, where rows are asked of a statement that has none
    no_rows_message CONSTANT text := 'INTO used with a command that cannot return data';
    launching_role text;
    started_at timestamptz;
    succeeded boolean;
    results refcursor;
    item record;
    row_text text;
    row_texts text[];
    result_bytes bigint := 0;
    row_count bigint;
    column_names text[];
    first_item record;
    first_row bytea;
    error_sqlstate text;
    error_message text;
    error_fields jsonb;
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(gate_key), pg_catalog.pg_advisory_xact_lock(attempt_key);
    IF pg_catalog.pg_xact_status(launch_xid) IS DISTINCT FROM 'committed' THEN
        RETURN NULL;
    END IF;
    IF NOT is_first THEN
        IF EXISTS (
            SELECT FROM celery_pgbg.outcome AS o WHERE o.task_id = run_v1.task_id AND o.attempt = run_v1.attempt
        ) THEN
            RETURN NULL;
        END IF;
    END IF;

    started_at := pg_catalog.clock_timestamp();
    BEGIN
        IF role_name IS NOT NULL THEN
            launching_role := pg_catalog.current_setting('role');
            PERFORM pg_catalog.set_config('role', role_name, true);
        END IF;
        IF preamble IS NOT NULL THEN
            EXECUTE preamble;
        END IF;

        IF returns IN ('row', 'value') THEN
            EXECUTE statement INTO first_item;
            GET DIAGNOSTICS row_count = ROW_COUNT;
            IF row_count > 0 THEN
                row_text := first_item::text;
                row_texts := ARRAY[row_text];
                result_bytes := octet_length(row_text);
            END IF;
        ELSIF returns = 'count' THEN
            EXECUTE statement;
            GET DIAGNOSTICS row_count = ROW_COUNT;
        ELSE
            BEGIN
                OPEN results FOR EXECUTE statement;
            EXCEPTION WHEN invalid_cursor_definition THEN
                IF returns IS NOT NULL THEN
                    RAISE syntax_error USING MESSAGE = no_rows_message;
                END IF;
                EXECUTE statement;
                GET DIAGNOSTICS row_count = ROW_COUNT;
                returns := 'count';
            END;
        END IF;
        IF results IS NOT NULL THEN
            returns := 'rows';
            row_count := 0;
            LOOP
                FETCH results INTO item;
                EXIT WHEN NOT FOUND;
                row_text := item::text;
                result_bytes := result_bytes + octet_length(row_text);
                EXIT WHEN result_bytes > max_result_bytes;
                row_texts := array_append(row_texts, row_text);
                row_count := row_count + 1;
                IF row_count = 1 THEN
                    first_item := item;
                END IF;
            END LOOP;
            CLOSE results;
        END IF;
        IF result_bytes > max_result_bytes THEN
            RAISE program_limit_exceeded USING
                MESSAGE = 'the result is larger than pgbg_max_result_bytes (' || max_result_bytes || ' bytes)',
                DETAIL = 'The statement was rolled back.',
                HINT = 'Return fewer rows, write them to a table, or raise pgbg_max_result_bytes.',
                TABLE = 'celery_pgbg.outcome';
        END IF;
        IF row_texts IS NOT NULL THEN
            BEGIN
                first_row := record_send(first_item);
            EXCEPTION WHEN undefined_function THEN
                -- a type without a binary form: all are read as text
                first_row := NULL;
            END;
            IF returns <> 'value' OR first_row IS NULL THEN
                column_names := ARRAY(SELECT json_object_keys(row_to_json(first_item)));
            END IF;
        END IF;

        SET CONSTRAINTS ALL IMMEDIATE;
        IF role_name IS NOT NULL THEN
            PERFORM pg_catalog.set_config('role', launching_role, true);
        END IF;
        succeeded := true;
    EXCEPTION WHEN assert_failure OR OTHERS THEN
        succeeded := false;
        row_texts := NULL;
        row_count := NULL;
        first_row := NULL;
        GET STACKED DIAGNOSTICS
            error_sqlstate = RETURNED_SQLSTATE,
            error_message = MESSAGE_TEXT;
        IF error_sqlstate = '42601' AND error_message = no_rows_message THEN
            error_message := 'the task has returns="' || returns || '", but its statement returns no rows';
        END IF;
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
            error_fields := pg_catalog.jsonb_build_object(
                'message_detail', nullif(detail, ''), 'message_hint', nullif(hint, ''),
                'context', nullif(context, ''), 'schema_name', nullif(schema_name, ''),
                'table_name', nullif(table_name, ''), 'column_name', nullif(column_name, ''),
                'datatype_name', nullif(datatype_name, ''), 'constraint_name', nullif(constraint_name, '')
            );
        END;
    END;

    INSERT INTO celery_pgbg.outcome (
        task_id, attempt, succeeded, pid, started_at, finished_at, returns, row_count,
        column_names, first_row, row_texts, sqlstate, message, error_fields
    ) VALUES (
        task_id, attempt, succeeded, pg_catalog.pg_backend_pid(), started_at,
        pg_catalog.clock_timestamp(), returns, row_count,
        column_names, first_row, row_texts, error_sqlstate, error_message, error_fields
    );
    IF notify THEN
        PERFORM pg_catalog.pg_notify('celery_pgbg_outcome', attempt || ' ' || task_id);
    END IF;
    RETURN NULL;
END;
$$;
