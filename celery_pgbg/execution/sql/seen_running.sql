-- A moment at which the background worker of a handle ran, no row where it does not run any more. Asked on its
-- launching session, and with its role. At that moment, the process of its PID was that worker for certain: a
-- handle's PID is wrong only where the worker had ended at its launch.
SELECT statement_timestamp() FROM {list_function}() AS ({list_columns})
WHERE pid = %(pid)s::integer AND cookie = %(cookie)s::bigint AND state = 'running'
