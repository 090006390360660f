-- Take the orders of a pool and run them one after another in a background worker, each in a transaction of its own,
-- until no order has come for a second, or the background worker is stopped. It first waits for the end of its launch.
--
-- An order is taken in a transaction of its own, so that every session sees which process has the order before it runs. That
-- transaction also writes this background worker's row. So a session that locks the row to stop a task knows that no other
-- task begins meanwhile. If the row is gone, or is marked as stopped, the background worker gives the order back and ends.
--
-- The search for orders starts where the orders of half a second ago were, to skip dead rows, which stay as long as any
-- snapshot sees them. An order with a lower number that is committed later waits for another background worker, whose search
-- starts at zero.
--
-- Each order has a number of a sequence. While the sequence has not moved, there is no new order; reading the sequence takes a
-- hundredth of the time of a search. Some searches still follow after a move, because an order is committed a moment after
-- it got its number; and one each 40 ms, because an order may come back or change its pool.
--
-- While waiting it holds no snapshot for longer than a pause. Between two tasks it resets the session to its first state, as
-- a connection pooler does.
CREATE OR REPLACE PROCEDURE celery_pgbg.serve_v1(bgworker_id bigint, pool pg_catalog.text, launch_xid pg_catalog.xid8)
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    own CONSTANT pg_catalog.regrole := pg_catalog.quote_ident(CURRENT_USER);
    -- as the launching session wants them for tasks; RESET ALL would set that session's own
    isolation CONSTANT pg_catalog.text := pg_catalog.current_setting('default_transaction_isolation');
    of_dates CONSTANT pg_catalog.text := pg_catalog.current_setting('datestyle');
    of_intervals CONSTANT pg_catalog.text := pg_catalog.current_setting('intervalstyle');
    of_arrays CONSTANT pg_catalog.text := pg_catalog.current_setting('array_nulls');
    of_names CONSTANT pg_catalog.text := pg_catalog.current_setting('quote_all_identifiers');
    process_start timestamp with time zone;
    task pg_catalog.record;
    -- what a process keeps in memory only grows
    tasks_left integer := 1000;
    is_used boolean := false;
    is_idle boolean := false;
    ends boolean := false;
    waited_ms integer := 0;
    pause_ms integer;
    -- read by the function behind the view pg_sequences; NULL, without the right to read it, never equals
    numbers CONSTANT pg_catalog.regclass := pg_catalog.pg_get_serial_sequence('celery_pgbg.work', 'id');
    number bigint;
    number_before bigint;
    vain_looks integer := 0;
    unlooked_ms integer;
    lowest bigint := 0;
    next_lowest bigint := 0;
    lowest_since timestamp with time zone := pg_catalog.clock_timestamp();
BEGIN
    WHILE pg_catalog.pg_xact_status(launch_xid) OPERATOR(pg_catalog.=) 'in progress' LOOP
        PERFORM pg_catalog.pg_sleep(0.002);
    END LOOP;
    SELECT process.backend_start INTO process_start
    FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS process;
    COMMIT;
    LOOP
        -- first in the transaction, which must see new orders, and those that others take
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        IF is_used THEN
            EXECUTE 'CLOSE ALL';
            DEALLOCATE ALL;
            DISCARD SEQUENCES;
            DISCARD TEMP;
            PERFORM
                pg_catalog.pg_advisory_unlock_all(),
                -- random() must not follow from a seed that the task has set
                pg_catalog.setseed(
                    pg_catalog.uuid_hash(pg_catalog.gen_random_uuid()) OPERATOR(pg_catalog./) 2147483648.0::double precision
                ),
                pg_catalog.set_config('default_transaction_isolation', isolation, false),
                pg_catalog.set_config('datestyle', of_dates, false),
                pg_catalog.set_config('intervalstyle', of_intervals, false),
                pg_catalog.set_config('array_nulls', of_arrays, false),
                pg_catalog.set_config('quote_all_identifiers', of_names, false),
                pg_catalog.set_config('standard_conforming_strings', 'on', false),
                pg_catalog.set_config('client_min_messages', 'error', false),
                pg_catalog.set_config('row_security', 'on', false),
                pg_catalog.set_config('application_name', task.shown_as, false);
            is_used := false;
        END IF;
        -- the table may be empty when this is planned, and full of dead rows later
        PERFORM pg_catalog.set_config('enable_seqscan', 'off', true);
        number_before := number;
        number := pg_catalog.pg_sequence_last_value(numbers);
        DELETE FROM celery_pgbg.work AS w
        WHERE w.ctid OPERATOR(pg_catalog.=) (
            SELECT waiting.ctid FROM celery_pgbg.work AS waiting
            WHERE waiting.pool OPERATOR(pg_catalog.=) pool AND waiting.id OPERATOR(pg_catalog.>) lowest
                -- never execute what another role wrote
                AND waiting.role OPERATOR(pg_catalog.=) own
            ORDER BY waiting.id
            FOR UPDATE SKIP LOCKED
            LIMIT 1
        )
        RETURNING w.* INTO task;
        IF FOUND THEN
            UPDATE celery_pgbg.bgworker AS b
            SET pid = pg_catalog.pg_backend_pid(), backend_start = process_start, is_busy = true,
                turn = b.turn OPERATOR(pg_catalog.+) 1, owner = task.owner, task_id = task.task_id,
                attempt = task.attempt, changed_at = pg_catalog.clock_timestamp(),
                statement = pg_catalog.left(pg_catalog.concat_ws(' ', task.preamble, task.statement), 2000)
            WHERE b.id OPERATOR(pg_catalog.=) bgworker_id AND b.role OPERATOR(pg_catalog.=) own AND NOT b.is_stopped;
            IF NOT FOUND THEN
                ROLLBACK;
                RETURN;
            END IF;
            COMMIT;
            IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) lowest_since
                OPERATOR(pg_catalog.>) '0.5 s'::interval
            THEN
                lowest := next_lowest;
                next_lowest := task.id;
                lowest_since := pg_catalog.clock_timestamp();
            END IF;
            PERFORM pg_catalog.set_config('application_name', task.shown_as, false);
            PERFORM celery_pgbg.run_v1(
                task_id => task.task_id,
                attempt => task.attempt,
                owner => task.owner,
                -- committed for sure, as the order exists
                launch_xid => '1'::pg_catalog.xid8,
                attempt_key => task.attempt_key,
                is_first => task.is_first,
                preamble => task.preamble,
                statement => task.statement,
                -- short statements: do not plan twice
                is_plain_query => false,
                returns => task.returns,
                role_name => task.role_name,
                max_result_bytes => task.max_result_bytes,
                notify => task.notify,
                message_id => task.message_id,
                task_meta => task.task_meta
            );
            tasks_left := tasks_left OPERATOR(pg_catalog.-) 1;
            ends := tasks_left OPERATOR(pg_catalog.<=) 0;
            IF NOT ends THEN
                ends := celery_pgbg.keeps_state();
            END IF;
            IF ends THEN
                -- together with the outcome, before another task comes
                DELETE FROM celery_pgbg.bgworker AS b
                WHERE b.id OPERATOR(pg_catalog.=) bgworker_id AND b.role OPERATOR(pg_catalog.=) own;
                RETURN;
            END IF;
            COMMIT;
            -- First commands without any name: the task may have left a role and a search_path. Then a new transaction,
            -- without the properties that the task has left, such as read only.
            RESET SESSION AUTHORIZATION;
            RESET ROLE;
            RESET ALL;
            is_used := true;
            is_idle := false;
            waited_ms := 0;
        ELSE
            IF waited_ms OPERATOR(pg_catalog.>=) 1000 THEN
                DELETE FROM celery_pgbg.bgworker AS b
                WHERE b.id OPERATOR(pg_catalog.=) bgworker_id AND b.role OPERATOR(pg_catalog.=) own;
                RETURN;
            ELSIF is_idle THEN
                PERFORM FROM celery_pgbg.bgworker AS b
                WHERE b.id OPERATOR(pg_catalog.=) bgworker_id AND b.role OPERATOR(pg_catalog.=) own
                    AND NOT b.is_stopped;
                IF NOT FOUND THEN
                    RETURN;
                END IF;
            -- mostly the next order comes before that
            ELSIF waited_ms OPERATOR(pg_catalog.>=) 4 THEN
                UPDATE celery_pgbg.bgworker AS b
                SET is_busy = false, backend_start = process_start, changed_at = pg_catalog.clock_timestamp()
                WHERE b.id OPERATOR(pg_catalog.=) bgworker_id AND b.role OPERATOR(pg_catalog.=) own
                    AND NOT b.is_stopped;
                IF NOT FOUND THEN
                    RETURN;
                END IF;
                COMMIT;
                is_idle := true;
            END IF;
            pause_ms := LEAST(1 OPERATOR(pg_catalog.+) (waited_ms OPERATOR(pg_catalog./) 3), 20);
            PERFORM pg_catalog.pg_sleep(pause_ms OPERATOR(pg_catalog./) 1000.0);
            waited_ms := waited_ms OPERATOR(pg_catalog.+) pause_ms;
            COMMIT;
            vain_looks := CASE
                WHEN number OPERATOR(pg_catalog.=) number_before THEN vain_looks OPERATOR(pg_catalog.+) 1
                ELSE 0
            END;
            unlooked_ms := 0;
            WHILE vain_looks OPERATOR(pg_catalog.>=) 2 AND unlooked_ms OPERATOR(pg_catalog.<) 40
                AND pg_catalog.pg_sequence_last_value(numbers) OPERATOR(pg_catalog.=) number
            LOOP
                pause_ms := LEAST(1 OPERATOR(pg_catalog.+) (waited_ms OPERATOR(pg_catalog./) 3), 20);
                PERFORM pg_catalog.pg_sleep(pause_ms OPERATOR(pg_catalog./) 1000.0);
                waited_ms := waited_ms OPERATOR(pg_catalog.+) pause_ms;
                unlooked_ms := unlooked_ms OPERATOR(pg_catalog.+) pause_ms;
            END LOOP;
        END IF;
        COMMIT;
    END LOOP;
END;
$$;
