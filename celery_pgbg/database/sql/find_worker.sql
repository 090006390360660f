-- The live background worker of an attempt, by backend type and our application name.
SELECT pid FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'pg_background' AND application_name = %(application_name)s::text
