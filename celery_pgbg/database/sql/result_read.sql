-- What is known of some tasks: their stored state and, if the state is not final or refers to an outcome, the outcome of
-- their latest attempt if it succeeded or was lost. An outcome that is its task's result, with a task_meta, goes before all
-- but a stored success. On any session. OFFSET 0: see read_outcomes.
SELECT
    wanted.task_id, coalesce(stored.forgotten, false) AS forgotten, stored.status,
    stored.content_type, stored.content_encoding, stored.value, stored.outcome_attempt, stored.details,
    stored.traceback, stored.date_done, stored.group_id, stored.parent_id,
    stored.name, stored.worker, stored.retries, stored.queue,
    outcome.attempt, outcome.finished_at, outcome.returns, outcome.row_count, outcome.command_tag,
    outcome.column_names, outcome.column_types, outcome.row_texts, outcome.task_meta,
    CASE WHEN outcome.settled_as = 'lost' THEN outcome.message END AS loss
FROM unnest(%(task_ids)s::text[]) AS wanted (task_id)
LEFT JOIN LATERAL (
    SELECT * FROM celery_pgbg.result AS r
    WHERE r.owner = (SELECT celery_pgbg.owner()) AND r.task_id = wanted.task_id
    OFFSET 0
) AS stored ON true
LEFT JOIN LATERAL (
    SELECT
        o.attempt, o.succeeded, o.finished_at, o.returns, o.row_count, o.command_tag,
        o.column_names, o.column_types, o.row_texts, o.settled_as, o.message, o.task_meta
    FROM celery_pgbg.outcome AS o
    WHERE o.owner = (SELECT celery_pgbg.owner()) AND o.task_id = wanted.task_id
        AND (stored.outcome_attempt IS NULL OR o.attempt = stored.outcome_attempt)
        AND stored.forgotten IS NOT TRUE
        AND (
            stored.outcome_attempt IS NOT NULL OR stored.status IS NULL
            OR stored.status <> ALL (ARRAY['SUCCESS', 'FAILURE', 'REVOKED'])
            OR (o.task_meta IS NOT NULL AND stored.status <> 'SUCCESS')
        )
    ORDER BY o.task_meta IS NULL, o.attempt DESC
    LIMIT 1
) AS outcome ON outcome.succeeded OR outcome.settled_as = 'lost'
