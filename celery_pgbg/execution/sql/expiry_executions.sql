-- One batch of records of launches older than the limit, the oldest first, after the last record of the previous batch:
-- deletes those without an outcome that do not run, unless another session is deleting. One row, even for an empty batch.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(celery_pgbg.lock_key('delete expired', ''))
        OR celery_pgbg.stranger(celery_pgbg.lock_key('delete expired', '')) IS NOT NULL AS ours
), batch AS MATERIALIZED (
    SELECT task_id, attempt, owner, launched_at FROM celery_pgbg.execution
    WHERE launched_at < %(before)s::timestamptz
        AND (launched_at, task_id, attempt)
            > (coalesce(%(last_at)s::timestamptz, '-infinity'), %(last_task_id)s::text, %(last_attempt)s::integer)
    ORDER BY launched_at, task_id, attempt
    LIMIT %(batch_size)s::bigint
), without_outcome AS MATERIALIZED (
    SELECT batch.* FROM batch
    WHERE NOT EXISTS (
        SELECT FROM celery_pgbg.outcome AS outcome
        WHERE outcome.task_id = batch.task_id AND outcome.attempt = batch.attempt AND outcome.owner = batch.owner
    )
), judged AS MATERIALIZED (
    SELECT
        without_outcome.task_id, without_outcome.attempt, without_outcome.owner,
        (without_outcome.task_id, without_outcome.attempt, without_outcome.owner) = ANY (
            SELECT live.task_id, live.attempt, live.owner FROM celery_pgbg.live_attempts() AS live
        ) AS runs
    FROM without_outcome
), deleted AS (
    DELETE FROM celery_pgbg.execution AS execution
    USING judged
    WHERE execution.task_id = judged.task_id AND execution.attempt = judged.attempt AND execution.owner = judged.owner
        AND NOT judged.runs AND (SELECT ours FROM turn)
    RETURNING execution.task_id
)
SELECT
    turn.ours,
    (SELECT count(*) FROM batch) AS looked_at,
    (SELECT count(*) FROM deleted) AS deleted,
    0 AS results,
    0 AS chord_parts,
    (SELECT count(*) FROM judged WHERE runs) AS running,
    last_one.launched_at AS last_at, last_one.task_id AS last_task_id, last_one.attempt AS last_attempt
FROM turn
LEFT JOIN (
    SELECT launched_at, task_id, attempt FROM batch ORDER BY launched_at DESC, task_id DESC, attempt DESC LIMIT 1
) AS last_one ON true
