-- Hand one attempt over to a reusable background worker that has ended its last task, unless the attempt has
-- ended or runs already.
--
-- Runs on the session that launched the worker, as a transaction of its own. Only that session hands over,
-- and only after it has seen the outcome of the worker's last task: so it knows at any time which task a cancel
-- of the handle would hit. The row lock settles who is first, this or the worker's own end.
--
-- State: finished and attached as in ``launch``; launched; ended (the worker has ended: take another).
CREATE OR REPLACE FUNCTION celery_pgbg.hand_over(
    bgworker_id bigint,
    last_turn integer,
    bgworker_pid integer,
    bgworker_cookie bigint,
    task_id text,
    attempt integer,
    task_name text,
    application_name text,
    nodename text,
    preamble text,
    statement text,
    returns text,
    role_name text,
    max_result_bytes bigint,
    notify boolean,
    OUT state text,
    OUT pid integer,
    OUT cookie bigint
)
LANGUAGE plpgsql
AS $$
DECLARE
    is_first boolean;
BEGIN
    SELECT earlier.* INTO state, pid, cookie, is_first
    FROM celery_pgbg.earlier_delivery(task_id, attempt) AS earlier;
    IF state IS NOT NULL THEN
        RETURN;
    END IF;

    UPDATE celery_pgbg.bgworker AS b
    SET turn = last_turn + 1, task_id = hand_over.task_id, attempt = hand_over.attempt,
        application_name = hand_over.application_name, changed_at = clock_timestamp(),
        work = celery_pgbg.run_call(
            celery_pgbg.lock_key('gate', pg_current_xact_id()::text), is_first, hand_over.task_id,
            hand_over.attempt, preamble, statement, returns, role_name, max_result_bytes, notify
        )
    WHERE b.id = bgworker_id AND b.turn = last_turn AND EXISTS (SELECT FROM pg_stat_get_activity(bgworker_pid));
    IF NOT FOUND THEN
        state := 'ended';
        RETURN;
    END IF;
    pid := bgworker_pid;
    cookie := bgworker_cookie;
    PERFORM celery_pgbg.record_execution(task_id, attempt, task_name, pid, cookie, application_name, nodename);
    state := 'launched';
END;
$$;
