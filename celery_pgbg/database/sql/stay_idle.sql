-- Protect this session, which mostly waits, from idle_session_timeout. Returns its limit; no row without a limit.
SELECT
    pg_catalog.current_setting('idle_session_timeout') AS was,
    pg_catalog.set_config('idle_session_timeout', '0', false)
WHERE pg_catalog.current_setting('idle_session_timeout') OPERATOR(pg_catalog.<>) '0'
