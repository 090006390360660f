-- Put the progress read in the launching session where every session can see it.
UPDATE celery_pgbg.execution AS execution
SET progress_percent = fresh.percent, progress_message = fresh.message
FROM unnest(%(pids)s::integer[], %(cookies)s::bigint[], %(percents)s::smallint[], %(messages)s::text[])
    AS fresh (pid, cookie, percent, message)
WHERE execution.pid = fresh.pid AND execution.cookie = fresh.cookie
