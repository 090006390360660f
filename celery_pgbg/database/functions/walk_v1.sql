-- Run an attempt of a batched task in a background worker: one batch of rows after the other, in the order of their
-- keys, each committed together with how far it came.
--
-- Only one background worker at a time does this for an attempt: it holds the attempt's advisory lock as long as it
-- lives. Later attempts and tasks may continue the walk, so the walk's row decides which background worker works on it:
-- each batch locks the row, and does nothing unless the row has this background worker's turn.
--
-- A procedure that commits cannot have a search path of its own, so all operators are in functions, which have one. An
-- error at a commit ends the background worker; the next launch of the attempt continues after the last batch.
-- ``may_commit`` is false in tests, which run this procedure in their own transaction.
CREATE OR REPLACE PROCEDURE celery_pgbg.walk_v1(
    task_id text,
    attempt integer,
    launch_xid xid8,
    attempt_key bigint,
    walk jsonb,
    role_name text,
    may_commit boolean
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    launching_role CONSTANT pg_catalog.text := pg_catalog.current_setting('role');
    owner CONSTANT pg_catalog.regrole := celery_pgbg.owner();
    turn integer;
    tries integer := 0;
    is_left boolean;
    is_over boolean;
    pause_seconds double precision;
    failure pg_catalog.jsonb;
BEGIN
    WHILE pg_catalog.pg_xact_status(launch_xid) OPERATOR(pg_catalog.=) 'in progress' LOOP
        PERFORM pg_catalog.pg_sleep(0.002);
    END LOOP;
    IF may_commit THEN
        PERFORM celery_pgbg.take_attempt(attempt_key, owner);
        PERFORM pg_catalog.pg_advisory_lock(attempt_key);
        -- for a snapshot that shows what the last batch has left
        COMMIT;
    END IF;
    IF NOT celery_pgbg.walk_may_run(task_id, attempt, launch_xid) THEN
        RETURN;
    END IF;

    LOOP
        failure := NULL;
        is_left := false;
        is_over := false;
        pause_seconds := 0;
        -- Shows every session which process runs the attempt; the statement can release a lock of the session.
        PERFORM celery_pgbg.take_attempt(attempt_key, owner);
        PERFORM pg_catalog.set_config('role', launching_role, true);
        BEGIN
            IF turn IS NULL THEN
                SELECT s.walk, s.turn INTO walk, turn
                FROM celery_pgbg.walk_start(task_id, attempt, role_name, walk) AS s;
            ELSE
                SELECT b.is_left, b.is_over, b.pause_seconds INTO is_left, is_over, pause_seconds
                FROM celery_pgbg.walk_batch(task_id, attempt, walk, turn, role_name, may_commit) AS b;
                tries := 0;
            END IF;
        EXCEPTION WHEN assert_failure OR OTHERS THEN
            DECLARE
                sqlstate_raised pg_catalog.text;
                message pg_catalog.text;
                detail pg_catalog.text;
                hint pg_catalog.text;
                context pg_catalog.text;
                schema_name pg_catalog.text;
                table_name pg_catalog.text;
                column_name pg_catalog.text;
                datatype_name pg_catalog.text;
                constraint_name pg_catalog.text;
            BEGIN
                GET STACKED DIAGNOSTICS
                    sqlstate_raised = RETURNED_SQLSTATE,
                    message = MESSAGE_TEXT,
                    detail = PG_EXCEPTION_DETAIL,
                    hint = PG_EXCEPTION_HINT,
                    context = PG_EXCEPTION_CONTEXT,
                    schema_name = SCHEMA_NAME,
                    table_name = TABLE_NAME,
                    column_name = COLUMN_NAME,
                    datatype_name = PG_DATATYPE_NAME,
                    constraint_name = CONSTRAINT_NAME;
                failure := celery_pgbg.walk_failure(
                    sqlstate_raised, message, detail, hint,
                    celery_pgbg.own_context(
                        context, '{}', ARRAY[pg_catalog.jsonb_extract_path_text(walk, 'statement', '0', 'text')]
                    ), schema_name, table_name, column_name,
                    datatype_name, constraint_name
                );
            END;
        END;

        IF failure IS NOT NULL THEN
            IF may_commit THEN
                ROLLBACK;
            END IF;
            pause_seconds := celery_pgbg.walk_fail(task_id, attempt, walk, turn, failure, tries);
            tries := tries OPERATOR(pg_catalog.+) 1;
            is_left := pause_seconds IS NULL;
        ELSIF is_over THEN
            PERFORM celery_pgbg.walk_end(task_id, attempt, walk, NULL);
        END IF;
        IF may_commit THEN
            COMMIT;
        END IF;
        IF is_left OR is_over THEN
            RETURN;
        END IF;
        PERFORM celery_pgbg.take_attempt(attempt_key, owner), pg_catalog.pg_sleep(pause_seconds);
        IF may_commit THEN
            COMMIT;
        END IF;
    END LOOP;
END;
$$;
