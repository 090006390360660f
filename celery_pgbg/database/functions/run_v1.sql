-- Run one attempt's statement in a background worker; its effects and its outcome commit together.
--
-- Waits for the gate, the end of the launching transaction. Ends quietly if that transaction rolled back or another
-- background worker left an outcome; else runs the statement in a subtransaction. An error rolls the subtransaction back
-- and is itself the outcome. A cancel or a time limit is not caught: it leaves no outcome at all.
-- Returns NULL, as text because a launcher must name the type to read an error from a handle.
--
-- The statement may leave any state of the session behind. So nothing here depends on search_path or on styles, and our
-- own work runs with the role, the row security and the lock timeout from before the statement.
--
-- The transaction log shows whether the launching transaction committed. A table does not, because under REPEATABLE READ
-- this transaction's snapshot is older than that commit.
--
-- Opening a cursor shows the columns, without executing anything. Their types are kept as they are if all are
-- PostgreSQL's own and none is a domain: such OIDs are below 0x3000.
--
-- If message_id names the broker's message of the attempt, the message is deleted with a success, because nothing is left
-- to do. If another session is just giving the message to another consumer, it stays, and is acknowledged later.
--
-- Short, with few expressions and names: each background worker is a new process that reads, compiles and plans all of it
-- anew. This function does what most tasks need: one row or a count, as the role of the session. It calls others for the
-- rest, but none between the statement and the check of the session's state, because the statement may leave a role that
-- has no right to call them.
CREATE OR REPLACE FUNCTION celery_pgbg.run_v1(
    task_id pg_catalog.text,
    attempt integer,
    owner pg_catalog.regrole,
    launch_xid pg_catalog.xid8,
    attempt_key bigint,
    is_first boolean,
    preamble pg_catalog.text,
    statement pg_catalog.text,
    is_plain_query boolean,
    returns pg_catalog.text,
    role_name pg_catalog.text,
    max_result_bytes bigint,
    notify boolean,
    message_id bigint DEFAULT NULL,
    task_meta pg_catalog.jsonb DEFAULT NULL
) RETURNS pg_catalog.text
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    launched pg_catalog.record;
    results pg_catalog.refcursor;
    columns pg_catalog.record;
    item pg_catalog.record;
    ran pg_catalog.record;
    row_count bigint;
    -- for rare cases: styles, or an error
    spare pg_catalog.record;
BEGIN
    SELECT
        -- this lock shows which process runs the attempt
        pg_catalog.pg_try_advisory_xact_lock(attempt_key) AS has_lock,
        -- the gate: a stranger could hold a lock
        is_first AND (pg_catalog.pg_xact_status(launch_xid) OPERATOR(pg_catalog.=) 'committed') AS may_run,
        pg_catalog.clock_timestamp() AS started_at,
        returns OPERATOR(pg_catalog.=) 'count' AS counts,
        preamble IS NULL AND role_name IS NULL AND NOT is_plain_query
            AND NOT (returns OPERATOR(pg_catalog.=) 'rows') AS is_simple,
        SESSION_USER AS session_name,
        pg_catalog.current_setting('role') AS role_name,
        pg_catalog.current_setting('lock_timeout') AS lock_timeout,
        pg_catalog.concat_ws(
            ' ', SESSION_USER, CURRENT_USER, pg_catalog.current_setting('role'),
            pg_catalog.current_setting('row_security'), pg_catalog.current_setting('lock_timeout')
        ) AS state
    INTO launched;
    IF (launched.has_lock AND launched.may_run) IS NOT TRUE THEN
        IF NOT celery_pgbg.may_run(task_id, attempt, owner, launch_xid, attempt_key, is_first, launched.has_lock) THEN
            RETURN NULL;
        END IF;
        launched.started_at := pg_catalog.clock_timestamp();
    END IF;

    BEGIN
        IF launched.is_simple IS NOT TRUE THEN
            SELECT * INTO ran FROM celery_pgbg.execute_statement(
                preamble, statement, is_plain_query, returns, role_name, max_result_bytes
            );
        ELSIF launched.counts THEN
            EXECUTE statement;
            GET DIAGNOSTICS row_count = ROW_COUNT;
            SELECT
                NULL::pg_catalog.text AS column_names, NULL::pg_catalog.bytea AS column_types,
                NULL::pg_catalog.text[] AS row_texts, row_count
            INTO ran;
        ELSE
            OPEN results FOR EXECUTE statement;
            -- a row of NULLs, with the names and types of the columns
            FETCH RELATIVE 0 FROM results INTO columns;
            FETCH results INTO item;
            GET DIAGNOSTICS row_count = ROW_COUNT;
            SELECT
                -- the types of execute_statement's columns: a plan knows one type
                pg_catalog.row_to_json(columns)::pg_catalog.text AS column_names,
                pg_catalog.record_send(columns) AS column_types,
                CASE WHEN FOUND THEN ARRAY[item::pg_catalog.text] END AS row_texts, row_count,
                -- the statement may have set styles
                pg_catalog.concat_ws(
                    ' ', pg_catalog.current_setting('intervalstyle'), pg_catalog.current_setting('datestyle')
                ) OPERATOR(pg_catalog.=) ANY ('{"postgres ISO, MDY","postgres ISO, DMY","postgres ISO, YMD"}'::pg_catalog.text[])
                AS is_printed
            INTO ran;
            IF (ran.is_printed AND pg_catalog.octet_length(ran.row_texts[1]) OPERATOR(pg_catalog.<=) max_result_bytes) IS NOT TRUE
                AND ran.row_texts IS NOT NULL
            THEN
                SELECT
                    pg_catalog.current_setting('datestyle') AS of_dates,
                    pg_catalog.current_setting('intervalstyle') AS of_intervals
                INTO spare;
                SET LOCAL datestyle = 'ISO';
                SET LOCAL intervalstyle = 'postgres';
                ran.row_texts := ARRAY[item::pg_catalog.text];
                PERFORM
                    pg_catalog.set_config('datestyle', spare.of_dates, true),
                    pg_catalog.set_config('intervalstyle', spare.of_intervals, true);
                IF pg_catalog.octet_length(ran.row_texts[1]) OPERATOR(pg_catalog.>) max_result_bytes THEN
                    RAISE program_limit_exceeded USING TABLE = 'celery_pgbg.outcome';
                END IF;
            END IF;
            MOVE FORWARD ALL FROM results;
            CLOSE results;
        END IF;

        SET CONSTRAINTS ALL IMMEDIATE;
        IF pg_catalog.concat_ws(
            ' ', SESSION_USER, CURRENT_USER, pg_catalog.current_setting('role'),
            pg_catalog.current_setting('row_security'), pg_catalog.current_setting('lock_timeout')
        ) OPERATOR(pg_catalog.=) launched.state IS NOT TRUE THEN
            IF SESSION_USER OPERATOR(pg_catalog.<>) launched.session_name THEN
                PERFORM pg_catalog.set_config('session_authorization', launched.session_name, true);
            END IF;
            PERFORM
                pg_catalog.set_config('role', launched.role_name, true),
                pg_catalog.set_config('row_security', 'on', true),
                pg_catalog.set_config('lock_timeout', launched.lock_timeout, true);
        END IF;
    EXCEPTION WHEN assert_failure OR OTHERS THEN
        SELECT
            '' AS sqlstate, '' AS message, '' AS message_detail, '' AS message_hint, '' AS context, '' AS schema_name,
            '' AS table_name, '' AS column_name, '' AS datatype_name, '' AS constraint_name
        INTO spare;
        GET STACKED DIAGNOSTICS
            spare.sqlstate = RETURNED_SQLSTATE,
            spare.message = MESSAGE_TEXT,
            spare.message_detail = PG_EXCEPTION_DETAIL,
            spare.message_hint = PG_EXCEPTION_HINT,
            spare.context = PG_EXCEPTION_CONTEXT,
            spare.schema_name = SCHEMA_NAME,
            spare.table_name = TABLE_NAME,
            spare.column_name = COLUMN_NAME,
            spare.datatype_name = PG_DATATYPE_NAME,
            spare.constraint_name = CONSTRAINT_NAME;
        PERFORM celery_pgbg.store_failure(
            task_id, attempt, owner, launched.started_at, spare, ARRAY[statement, preamble], returns, max_result_bytes,
            -- a cursor that could not be opened
            launched.is_simple AND NOT launched.counts AND results IS NULL
        );
        RETURN CASE
            WHEN launched.lock_timeout OPERATOR(pg_catalog.<>) '0'
                AND pg_catalog.set_config('lock_timeout', '0', true) IS NULL THEN ''
            WHEN notify AND pg_catalog.pg_notify('celery_pgbg_outcome', pg_catalog.concat_ws(' ', attempt, task_id)) IS NULL
                THEN ''
        END;
    END;

    INSERT INTO celery_pgbg.outcome (
        task_id, attempt, owner, succeeded, pid, started_at, finished_at, returns, row_count,
        column_names, column_types, row_texts, task_meta
    ) VALUES (
        task_id, attempt, owner, true, pg_catalog.pg_backend_pid(), launched.started_at, pg_catalog.clock_timestamp(),
        CASE WHEN ran.column_types IS NULL THEN 'count' ELSE COALESCE(returns, 'rows') END,
        ran.row_count, ran.column_names,
        CASE
            WHEN pg_catalog.encode(ran.column_types, 'hex') OPERATOR(pg_catalog.~) '^.{8}(0000[012].{3}f{8})*$'
                THEN ran.column_types
            ELSE celery_pgbg.base_types(ran.column_types)
        END,
        ran.row_texts, task_meta
    );
    IF message_id IS NOT NULL THEN
        BEGIN
            DELETE FROM celery_pgbg.message AS m
            WHERE m.id OPERATOR(pg_catalog.=) (
                SELECT own.id FROM celery_pgbg.message AS own
                WHERE own.id OPERATOR(pg_catalog.=) message_id
                FOR UPDATE SKIP LOCKED
            );
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END IF;
    RETURN CASE
        -- commits that notify wait for each other, which is not the statement's wait
        WHEN launched.lock_timeout OPERATOR(pg_catalog.<>) '0'
            AND pg_catalog.set_config('lock_timeout', '0', true) IS NULL THEN ''
        -- never NULL: one expression less than a statement of its own
        WHEN notify AND pg_catalog.pg_notify('celery_pgbg_outcome', pg_catalog.concat_ws(' ', attempt, task_id)) IS NULL THEN ''
    END;
END;
$$;
