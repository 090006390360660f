-- Run one task after another in a background worker, each in a transaction of its own, until none came for a
-- second, or its row is deleted. The first is in its row when the gate opens; no row where that launch rolled back.
--
-- While it waits it holds no snapshot for longer than a pause. Between two tasks the session is brought back to
-- its first state, as a connection pooler does it.
CREATE OR REPLACE PROCEDURE celery_pgbg.serve_v1(bgworker_id bigint, gate_key bigint)
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    last_turn integer := 0;
    next_task record;
    waited_ms integer := 0;
    pause_ms integer;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(gate_key);
    COMMIT;
    LOOP
        SELECT b.turn, b.application_name, b.work INTO next_task
        FROM celery_pgbg.bgworker AS b WHERE b.id = bgworker_id;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        IF next_task.turn > last_turn THEN
            PERFORM set_config('application_name', next_task.application_name, false);
            EXECUTE next_task.work;
            COMMIT;
            last_turn := next_task.turn;
            waited_ms := 0;
            PERFORM pg_advisory_unlock_all();
            DEALLOCATE ALL;
            DISCARD SEQUENCES;
            DISCARD TEMP;
            RESET SESSION AUTHORIZATION;
            RESET ROLE;
            RESET ALL;
            PERFORM
                set_config('datestyle', 'ISO', false), set_config('intervalstyle', 'postgres', false),
                set_config('bytea_output', 'hex', false), set_config('extra_float_digits', '1', false),
                set_config('client_min_messages', 'error', false),
                set_config('application_name', next_task.application_name, false);
        ELSIF waited_ms >= 1000 THEN
            DELETE FROM celery_pgbg.bgworker AS b WHERE b.id = bgworker_id AND b.turn = last_turn;
            IF FOUND THEN
                RETURN;
            END IF;
        ELSE
            pause_ms := least(1 + waited_ms / 4, 20);
            PERFORM pg_sleep(pause_ms / 1000.0);
            waited_ms := waited_ms + pause_ms;
        END IF;
        COMMIT;
    END LOOP;
END;
$$;
