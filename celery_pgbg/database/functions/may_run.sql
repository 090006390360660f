-- Whether a background worker may run its attempt, if that is not clear at once: waits for the end of the launching
-- transaction, and takes the lock that shows every session which process runs the attempt.
--
-- False if the launching transaction rolled back, or another background worker has left an outcome. The transaction log
-- shows the commit; a table does not, because under REPEATABLE READ the snapshot here is older than that commit.
CREATE OR REPLACE FUNCTION celery_pgbg.may_run(
    task_id pg_catalog.text,
    attempt integer,
    owner pg_catalog.regrole,
    launch_xid pg_catalog.xid8,
    attempt_key bigint,
    is_first boolean,
    has_lock boolean
) RETURNS boolean
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
BEGIN
    IF NOT has_lock THEN
        PERFORM celery_pgbg.take_attempt(attempt_key, owner);
    END IF;
    WHILE pg_catalog.pg_xact_status(launch_xid) OPERATOR(pg_catalog.=) 'in progress' LOOP
        PERFORM pg_catalog.pg_sleep(0.002);
    END LOOP;
    IF (pg_catalog.pg_xact_status(launch_xid) OPERATOR(pg_catalog.=) 'committed') IS NOT TRUE THEN
        RETURN false;
    END IF;
    -- a statement of its own: an expression that names a table locks the table, even without a look
    IF is_first THEN
        RETURN true;
    END IF;
    RETURN NOT EXISTS (
        SELECT FROM celery_pgbg.outcome AS o
        WHERE o.task_id OPERATOR(pg_catalog.=) may_run.task_id
            AND o.attempt OPERATOR(pg_catalog.=) may_run.attempt
            AND o.owner OPERATOR(pg_catalog.=) may_run.owner
    );
END;
$$;
