-- Stop the background worker that runs an attempt from a session that did not launch it: SIGTERM, which is what
-- pg_background's own cancel sends. Returns whether the signal was sent. Signals only a process that the server shows to
-- run this attempt, see live_attempts. The stop is recorded first, for the session that will see the error.
--
-- An order that no reusable background worker has taken is deleted, which counts as sent. If one has taken the order, its
-- row says so. Until this transaction ends, it cannot take another order, because this transaction has changed that row;
-- afterwards the row marks it as stopped, and it takes none.
CREATE OR REPLACE FUNCTION celery_pgbg.terminate_attempt(
    task_id text, attempt integer, although_finished boolean DEFAULT false
) RETURNS boolean
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    own CONSTANT pg_catalog.regrole := celery_pgbg.owner();
    has_row boolean;
BEGIN
    DELETE FROM celery_pgbg.work AS w
    WHERE w.task_id OPERATOR(pg_catalog.=) terminate_attempt.task_id
        AND w.attempt OPERATOR(pg_catalog.=) terminate_attempt.attempt
        AND w.owner OPERATOR(pg_catalog.=) own;
    IF FOUND THEN
        RETURN true;
    END IF;
    IF NOT although_finished AND EXISTS (
        SELECT FROM celery_pgbg.outcome AS o
        WHERE o.task_id OPERATOR(pg_catalog.=) terminate_attempt.task_id
            AND o.attempt OPERATOR(pg_catalog.=) terminate_attempt.attempt
            AND o.owner OPERATOR(pg_catalog.=) own
    ) THEN
        RETURN false;
    END IF;
    UPDATE celery_pgbg.bgworker AS b SET is_stopped = true
    WHERE b.task_id OPERATOR(pg_catalog.=) terminate_attempt.task_id
        AND b.attempt OPERATOR(pg_catalog.=) terminate_attempt.attempt
        AND b.owner OPERATOR(pg_catalog.=) own
        AND b.role OPERATOR(pg_catalog.=) pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole;
    has_row := FOUND;
    UPDATE celery_pgbg.execution AS e
    SET terminated_at = pg_catalog.clock_timestamp()
    WHERE e.task_id OPERATOR(pg_catalog.=) terminate_attempt.task_id
        AND e.attempt OPERATOR(pg_catalog.=) terminate_attempt.attempt
        AND e.owner OPERATOR(pg_catalog.=) own;
    RETURN coalesce((
        SELECT pg_catalog.bool_or(pg_catalog.pg_terminate_backend(live.pid))
        FROM celery_pgbg.live_attempts() AS live
        WHERE live.task_id OPERATOR(pg_catalog.=) terminate_attempt.task_id
            AND live.attempt OPERATOR(pg_catalog.=) terminate_attempt.attempt
            AND live.owner OPERATOR(pg_catalog.=) own
            AND (live.state OPERATOR(pg_catalog.=) 'running' OR live.state OPERATOR(pg_catalog.=) 'starting')
            -- one that took the order since may be at its next order when the signal arrives
            AND (has_row OR NOT EXISTS (
                SELECT FROM celery_pgbg.bgworker AS b
                WHERE b.pid OPERATOR(pg_catalog.=) live.pid
                    AND b.task_id OPERATOR(pg_catalog.=) terminate_attempt.task_id
                    AND b.attempt OPERATOR(pg_catalog.=) terminate_attempt.attempt
                    AND b.owner OPERATOR(pg_catalog.=) own
            ))
    ), false);
END;
$$;
