-- Stop the live background worker of an attempt, found by backend type and our application name.
SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'pg_background' AND application_name = %(application_name)s::text
