-- Keep this session, which waits by its nature, from being ended for that. Returns the limit that it had; no row
-- where it had none.
SELECT
    pg_catalog.current_setting('idle_session_timeout') AS was,
    pg_catalog.set_config('idle_session_timeout', '0', false)
WHERE pg_catalog.current_setting('idle_session_timeout') OPERATOR(pg_catalog.<>) '0'
