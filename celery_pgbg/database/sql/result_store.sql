-- Store the state and value of a task and notify the waiting processes, unless the task has succeeded already: a late
-- state does not overwrite a success, nor an outcome that is the result. One transaction, on any session.
WITH stored AS (
    INSERT INTO celery_pgbg.result AS result (
        task_id, status, content_type, content_encoding, value, details, traceback, date_done,
        group_id, parent_id, name, worker, retries, queue
    )
    SELECT
        %(task_id)s::text, %(status)s::text, %(content_type)s::text, %(content_encoding)s::text,
        %(value)s::bytea, %(details)s::bytea, %(traceback)s::text, %(date_done)s::timestamptz,
        %(group_id)s::text, %(parent_id)s::text, %(name)s::text, %(worker)s::text, %(retries)s::integer,
        %(queue)s::text
    WHERE %(status)s::text = 'SUCCESS'
        OR NOT EXISTS (
            SELECT FROM celery_pgbg.outcome AS outcome
            WHERE outcome.owner = (SELECT celery_pgbg.owner()) AND outcome.task_id = %(task_id)s::text
                AND outcome.task_meta IS NOT NULL
        )
        -- after a forgotten result, this is another task's
        OR EXISTS (
            SELECT FROM celery_pgbg.result AS forgotten
            WHERE forgotten.owner = (SELECT celery_pgbg.owner()) AND forgotten.task_id = %(task_id)s::text
                AND forgotten.forgotten
        )
    ON CONFLICT (task_id, owner) DO UPDATE SET
        status = excluded.status, content_type = excluded.content_type,
        content_encoding = excluded.content_encoding, value = excluded.value,
        -- hidden and forgotten outcomes stay hidden until there is a result
        outcome_attempt = CASE
            WHEN (result.outcome_attempt = -1 OR result.forgotten)
                AND excluded.status <> ALL (ARRAY['SUCCESS', 'FAILURE', 'REVOKED']) THEN -1
        END,
        details = excluded.details, traceback = excluded.traceback, date_done = excluded.date_done,
        group_id = excluded.group_id, parent_id = excluded.parent_id, name = excluded.name,
        worker = excluded.worker, retries = excluded.retries, queue = excluded.queue,
        forgotten = false, stored_at = excluded.stored_at
    WHERE result.status <> 'SUCCESS'
        -- The next attempt may have ended before this one could store that it is retried.
        AND (
            excluded.status <> 'RETRY' OR result.status <> ALL (ARRAY['FAILURE', 'REVOKED'])
            OR (excluded.retries < result.retries) IS NOT TRUE
        )
    RETURNING task_id, status
)
SELECT pg_notify('celery_pgbg_result', CASE WHEN octet_length(task_id) < 8000 THEN task_id ELSE '' END)
FROM stored
WHERE %(notify)s::boolean AND status = ANY (ARRAY['SUCCESS', 'FAILURE', 'REVOKED'])
