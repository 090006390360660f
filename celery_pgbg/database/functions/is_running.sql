-- Whether a recorded background worker is still alive: the PID alone proves nothing, so the backend
-- type and our application name must agree, or the name that is told to a reusable one which has not
-- looked yet. In its first seconds a worker may not show itself yet, and is taken for alive.
CREATE OR REPLACE FUNCTION celery_pgbg.is_running(
    pid integer, application_name text, launched_at timestamptz
) RETURNS boolean
LANGUAGE sql VOLATILE
RETURN launched_at > clock_timestamp() - interval '3 seconds' OR EXISTS (
    SELECT FROM pg_catalog.pg_stat_activity AS activity
    WHERE activity.pid = is_running.pid
        AND activity.backend_type = 'pg_background'
        AND (
            activity.application_name = is_running.application_name
            OR EXISTS (
                SELECT FROM celery_pgbg.bgworker AS b WHERE b.application_name = is_running.application_name
            )
        )
);
