-- Stop a background worker of this session that does not run its SQL yet. It is listed as running and was launched
-- through the gate, so that the PID is its own.
SELECT pg_terminate_backend(pid) FROM {list_function}() AS ({list_columns})
WHERE pid = %(pid)s::integer AND cookie = %(cookie)s::bigint AND state = 'running'
