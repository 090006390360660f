-- Background worker slots: those of pg_background in use, those of others, and all there are. What is no
-- background worker in PostgreSQL's own sense takes none. Any session.
SELECT
    count(*) FILTER (WHERE backend_type = 'pg_background') AS used,
    count(*) FILTER (
        WHERE backend_type <> ALL (ARRAY[
            'pg_background', 'client backend', 'autovacuum launcher', 'autovacuum worker', 'archiver',
            'background writer', 'checkpointer', 'io worker', 'slotsync worker', 'standalone backend', 'startup',
            'walreceiver', 'walsender', 'walsummarizer', 'walwriter'
        ])
    ) AS used_by_others,
    current_setting('max_worker_processes')::integer AS server_worker_limit
FROM pg_catalog.pg_stat_activity
