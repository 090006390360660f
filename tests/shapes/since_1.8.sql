-- What came with 1.8.
CREATE TYPE pg_background_progress AS (progress_pct integer, progress_msg text);

CREATE TYPE pg_background_stats AS (
    workers_launched bigint, workers_completed bigint, workers_failed bigint, workers_canceled bigint,
    workers_active integer, avg_execution_ms double precision, max_workers integer
);

CREATE FUNCTION pg_background_progress(pct integer, msg text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN PERFORM newer.pg_background_report_progress(pct, msg); END $$;

CREATE FUNCTION pg_background_get_progress_v2(pid integer, cookie bigint) RETURNS pg_background_progress
LANGUAGE plpgsql
AS $$
DECLARE
    progress newer.pg_background_progress_info := newer.pg_background_get_progress(pid, cookie);
BEGIN
    RETURN (progress.progress_pct, progress.progress_msg)::pg_background_progress;
END $$;

CREATE FUNCTION pg_background_stats_v2() RETURNS pg_background_stats
LANGUAGE sql
AS $$
    SELECT
        workers_launched, workers_completed, workers_failed, workers_canceled, workers_active, avg_execution_ms, max_workers
    FROM newer.pg_background_stats()
$$;
