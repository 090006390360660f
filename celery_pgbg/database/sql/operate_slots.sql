-- Background worker slots: those of pg_background in use, and all there are.
SELECT
    count(*) FILTER (WHERE backend_type = 'pg_background') AS used,
    current_setting('max_worker_processes')::integer AS server_worker_limit
FROM pg_catalog.pg_stat_activity
