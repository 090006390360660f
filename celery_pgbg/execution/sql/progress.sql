-- The progress that some background workers of this session reported; NULLs without a report.
SELECT handle.pid, handle.cookie, progress.progress_pct AS percent, progress.progress_msg AS message
FROM ROWS FROM (unnest(%(pids)s::integer[]), unnest(%(cookies)s::bigint[])) AS handle (pid, cookie)
CROSS JOIN LATERAL {get_progress_function}(handle.pid, handle.cookie) AS progress
