-- Store that a SQL task has succeeded; its value is the outcome of the attempt. Returns false, and
-- stores nothing, where this database has no such outcome of a task of that name.
-- One transaction, on any session. No notification: run_v1 sent one, when the outcome committed.
WITH proven AS (
    SELECT outcome.task_id, outcome.attempt
    FROM celery_pgbg.outcome AS outcome
    JOIN celery_pgbg.execution AS execution
        ON execution.task_id = outcome.task_id AND execution.attempt = outcome.attempt AND execution.owner = outcome.owner
    WHERE outcome.owner = (SELECT celery_pgbg.owner()) AND outcome.task_id = %(task_id)s::text AND outcome.attempt = %(attempt)s::integer
        AND outcome.succeeded AND execution.task_name = %(task_name)s::text
), stored AS (
    INSERT INTO celery_pgbg.result AS result (
        task_id, status, content_type, content_encoding, outcome_attempt, details, traceback, date_done,
        group_id, parent_id, name, worker, retries, queue
    )
    SELECT
        proven.task_id, 'SUCCESS', %(content_type)s::text, %(content_encoding)s::text, proven.attempt,
        %(details)s::bytea, %(traceback)s::text, %(date_done)s::timestamptz, %(group_id)s::text,
        %(parent_id)s::text, %(name)s::text, %(worker)s::text, %(retries)s::integer, %(queue)s::text
    FROM proven
    ON CONFLICT (task_id, owner) DO UPDATE SET
        status = excluded.status, content_type = excluded.content_type,
        content_encoding = excluded.content_encoding, value = NULL, outcome_attempt = excluded.outcome_attempt,
        details = excluded.details, traceback = excluded.traceback, date_done = excluded.date_done,
        group_id = excluded.group_id, parent_id = excluded.parent_id, name = excluded.name,
        worker = excluded.worker, retries = excluded.retries, queue = excluded.queue,
        forgotten = false, stored_at = excluded.stored_at
    -- a result that was forgotten before stays forgotten
    WHERE result.status <> 'SUCCESS'
        AND NOT (result.forgotten AND coalesce(result.outcome_attempt = excluded.outcome_attempt, false))
)
SELECT EXISTS (SELECT FROM proven) AS proven
