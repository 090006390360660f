-- What is known of some tasks: their stored state and, where that is not final or says so, the
-- outcome of their latest attempt if it succeeded. On any session.
SELECT
    wanted.task_id, coalesce(stored.forgotten, false) AS forgotten, stored.status,
    stored.content_type, stored.content_encoding, stored.value, stored.outcome_attempt, stored.details,
    stored.traceback, stored.date_done, stored.group_id, stored.parent_id,
    stored.name, stored.worker, stored.retries, stored.queue,
    outcome.attempt, outcome.finished_at, outcome.returns, outcome.row_count, outcome.command_tag,
    outcome.column_names, celery_pgbg.column_types(outcome.first_row) AS column_types, outcome.row_texts
FROM unnest(%(task_ids)s::text[]) AS wanted (task_id)
LEFT JOIN celery_pgbg.result AS stored ON stored.task_id = wanted.task_id
LEFT JOIN LATERAL (
    SELECT
        o.attempt, o.succeeded, o.finished_at, o.returns, o.row_count, o.command_tag,
        o.column_names, o.first_row, o.row_texts
    FROM celery_pgbg.outcome AS o
    WHERE o.task_id = wanted.task_id
        AND (stored.outcome_attempt IS NULL OR o.attempt = stored.outcome_attempt)
        AND stored.forgotten IS NOT TRUE
        AND (
            stored.outcome_attempt IS NOT NULL OR stored.status IS NULL
            OR stored.status NOT IN ('SUCCESS', 'FAILURE', 'REVOKED')
        )
    ORDER BY o.attempt DESC
    LIMIT 1
) AS outcome ON outcome.succeeded
