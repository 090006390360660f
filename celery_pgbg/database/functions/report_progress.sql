-- Report the progress of the running task, percent 0 - 100 and up to 63 bytes of message. Does nothing outside a
-- background worker, so a function that calls it can be tried by hand. Runs with the owner's rights, because the
-- task's role lacks them.
--
-- Rows that a transaction writes are invisible before its commit. But a session-level advisory lock is visible at once
-- to every session; its key is the percent. So progress works on every version of pg_background, in a reused
-- background worker, for a statement that stands alone, and without the launching session. From 1.8 on, the
-- message goes through pg_background, by whatever name its function has, to the launching session only.
--
-- Calls only a function that belongs to the extension, because other roles may create functions in its schema. With these
-- argument types no other function of that name and schema can be meant.
CREATE OR REPLACE FUNCTION celery_pgbg.report_progress(percent integer, message text DEFAULT '') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base CONSTANT bigint := (celery_pgbg.lock_key('progress', '') >> 32) << 32;
    shown CONSTANT integer := least(greatest(percent, 0), 100);
    is_held boolean := false;
    held record;
    installed text;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_stat_get_activity(pg_backend_pid()) AS a
        WHERE a.backend_type = 'pg_background'
    ) THEN
        RETURN;
    END IF;
    FOR held IN
        SELECT l.objid::bigint AS percent FROM pg_locks AS l
        WHERE l.pid = pg_backend_pid() AND l.locktype = 'advisory' AND l.objsubid = 1
            AND l.classid = celery_pgbg.progress_class()
    LOOP
        IF held.percent = shown THEN
            is_held := true;
        ELSE
            PERFORM pg_advisory_unlock_shared(base | held.percent);
        END IF;
    END LOOP;
    IF NOT is_held AND shown IS NOT NULL THEN
        PERFORM pg_try_advisory_lock_shared(base | shown);
    END IF;

    SELECT format('%I.%I', namespace.nspname, procedure.proname) INTO installed
    FROM pg_extension AS extension
    JOIN pg_depend AS dependency
        ON dependency.refclassid = 'pg_extension'::regclass AND dependency.refobjid = extension.oid
        AND dependency.classid = 'pg_proc'::regclass AND dependency.deptype = 'e'
    JOIN pg_proc AS procedure ON procedure.oid = dependency.objid
    JOIN pg_namespace AS namespace ON namespace.oid = procedure.pronamespace
    WHERE extension.extname = 'pg_background'
        AND procedure.proname IN ('pg_background_report_progress', 'pg_background_progress')
        AND oidvectortypes(procedure.proargtypes) = 'integer, text'
    ORDER BY procedure.proname DESC
    LIMIT 1;
    IF installed IS NOT NULL THEN
        EXECUTE 'SELECT ' || installed || '($1, $2)' USING percent, message;
    END IF;
END;
$$;
