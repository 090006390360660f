-- Stop a background worker from a session that did not launch it, after the identity check. SIGTERM.
SELECT pg_terminate_backend(pid) AS signalled
FROM pg_catalog.pg_stat_activity
WHERE pid = %(pid)s::integer
    AND backend_type = 'pg_background'
    AND application_name = %(application_name)s::text
