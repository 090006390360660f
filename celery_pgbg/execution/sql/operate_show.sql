-- All attempts of a task, with the outcome of each and, of a running one, what the server shows. Any session.
SELECT
    coalesce(execution.attempt, outcome.attempt) AS attempt,
    execution.task_name, execution.atomic,
    -- a placed order has no PID before it is taken
    CASE WHEN execution.pid = 0 THEN coalesce(live.pid, outcome.pid, 0) ELSE execution.pid END AS pid, execution.cookie, execution.nodename,
    execution.application_name, execution.launched_by, execution.launched_at, execution.launches,
    CASE
        WHEN outcome.succeeded AND execution.progress_percent IS NOT NULL THEN 100
        ELSE execution.progress_percent
    END AS progress_percent,
    execution.progress_message,
    CASE
        WHEN outcome.succeeded THEN 'finished'
        WHEN outcome.settled_as = 'revoked' THEN 'revoked'
        WHEN outcome.task_id IS NOT NULL THEN 'failed'
        WHEN live.state = ANY (ARRAY['running', 'unknown', 'waiting']) THEN live.state
        WHEN live.state IS NOT NULL THEN 'starting'
        ELSE 'gone'
    END AS state,
    outcome.started_at, outcome.finished_at, outcome.returns, outcome.row_count, outcome.command_tag,
    outcome.sqlstate, outcome.message, outcome.error_fields,
    concat_ws(': ', activity.wait_event_type, activity.wait_event) AS waits_for,
    coalesce(work.statement, bgworker.statement) AS statement, activity.query
FROM (SELECT * FROM celery_pgbg.execution WHERE execution.task_id = %(task_id)s::text) AS execution
FULL JOIN (SELECT * FROM celery_pgbg.outcome WHERE outcome.task_id = %(task_id)s::text) AS outcome
    ON outcome.task_id = execution.task_id AND outcome.attempt = execution.attempt AND outcome.owner = execution.owner
LEFT JOIN celery_pgbg.live_attempts() AS live
    ON live.task_id = execution.task_id AND live.attempt = execution.attempt AND live.owner = execution.owner
LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = live.pid AND live.state = 'running'
LEFT JOIN celery_pgbg.bgworker AS bgworker
    ON bgworker.task_id = execution.task_id AND bgworker.attempt = execution.attempt
    AND bgworker.owner = execution.owner AND live.pid = bgworker.pid
LEFT JOIN celery_pgbg.work AS work
    ON work.task_id = execution.task_id AND work.attempt = execution.attempt AND work.owner = execution.owner
ORDER BY attempt
