-- Set up a launching session: as many handles as pg_background allows, the text forms that psycopg's
-- adapters read, and no messages, which nobody reads; its workers inherit them. Tells whether workers may
-- be reused: a time limit of a statement would be one of a worker's whole life.
SELECT
    current_setting('statement_timeout') = '0'
        AND coalesce(nullif(current_setting('pg_background.worker_timeout', true), ''), '0') = '0' AS may_reuse,
    set_config('pg_background.max_workers', %(session_worker_limit)s::text, false),
    set_config('datestyle', 'ISO', false),
    set_config('intervalstyle', 'postgres', false),
    set_config('bytea_output', 'hex', false),
    set_config('extra_float_digits', '1', false),
    set_config('client_min_messages', 'error', false)
