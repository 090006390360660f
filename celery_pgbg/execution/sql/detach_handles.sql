-- Forget several handles of this session; does not stop their workers. One bad handle fails all.
SELECT {detach_function}(pid, cookie)
FROM ROWS FROM (unnest(%(pids)s::integer[]), unnest(%(cookies)s::bigint[])) AS handle (pid, cookie)
