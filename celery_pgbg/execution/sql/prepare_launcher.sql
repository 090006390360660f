-- Set up a launching session: as many handles as pg_background allows, and no messages, because no code reads them; its
-- background workers inherit that. Our statements are written for READ COMMITTED, for arrays with NULL in them and for names
-- without unnecessary quotes, whatever the database's defaults are; those defaults are returned, for the background workers.
-- Returns also whether they may be reused: a time limit of statements would limit the whole life of a reused one.
SELECT
    pg_size_bytes(CASE
        WHEN current_setting('pg_background.default_queue_size', true) <> ''
        THEN current_setting('pg_background.default_queue_size')
        ELSE '65536'
    END)::integer AS queue_bytes,
    current_setting('statement_timeout') = '0'
        AND coalesce(current_setting('pg_background.worker_timeout', true), '') = ANY (ARRAY['', '0']) AS may_reuse,
    pg_is_in_recovery() AS is_standby,
    jsonb_build_object(
        'default_transaction_isolation', current_setting('default_transaction_isolation'),
        'array_nulls', current_setting('array_nulls'),
        'quote_all_identifiers', current_setting('quote_all_identifiers'),
        'row_security', current_setting('row_security')
    ) AS defaults,
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('array_nulls', 'on', false),
    set_config('quote_all_identifiers', 'off', false),
    set_config('pg_background.max_workers', %(session_worker_limit)s::text, false),
    -- see earlier_delivery
    set_config('celery_pgbg.max_launches', coalesce(%(max_launches)s::text, ''), false),
    set_config('client_min_messages', 'error', false),
    -- with off the server would refuse our own tables
    set_config('row_security', 'on', false)
