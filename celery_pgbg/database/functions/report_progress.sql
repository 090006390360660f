-- Report the progress of the task that runs this, percent 0 - 100 and up to 63 bytes of message, under
-- whatever name the installed pg_background has for it. Does nothing outside a background worker, so
-- that a function that calls it can be tried by hand. As the owner, since the task's role may not.
CREATE OR REPLACE FUNCTION celery_pgbg.report_progress(percent integer, message text DEFAULT '') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    installed text;
BEGIN
    SELECT format('%I.%I', namespace.nspname, procedure.proname) INTO installed
    FROM pg_extension AS extension
    JOIN pg_namespace AS namespace ON namespace.oid = extension.extnamespace
    JOIN pg_proc AS procedure ON procedure.pronamespace = namespace.oid
    WHERE extension.extname = 'pg_background'
        AND procedure.proname IN ('pg_background_report_progress', 'pg_background_progress')
    ORDER BY procedure.proname DESC
    LIMIT 1;
    IF installed IS NOT NULL
        AND EXISTS (SELECT FROM pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type = 'pg_background')
    THEN
        EXECUTE 'SELECT ' || installed || '($1, $2)' USING percent, message;
    END IF;
END;
$$;
