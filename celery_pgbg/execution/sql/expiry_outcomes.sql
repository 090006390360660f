-- One batch of outcomes older than the limit, the oldest first, after the last outcome of the previous batch: deletes
-- them with the records of their launches, unless another session is deleting. Keeps those that are a result, or the value
-- of a stored result or of a chord's part. One row, even for an empty batch.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(celery_pgbg.lock_key('delete expired', ''))
        OR celery_pgbg.stranger(celery_pgbg.lock_key('delete expired', '')) IS NOT NULL AS ours
), batch AS MATERIALIZED (
    SELECT task_id, attempt, owner, finished_at, task_meta FROM celery_pgbg.outcome
    WHERE finished_at < %(before)s::timestamptz
        AND (finished_at, task_id, attempt)
            > (coalesce(%(last_at)s::timestamptz, '-infinity'), %(last_task_id)s::text, %(last_attempt)s::integer)
    ORDER BY finished_at, task_id, attempt
    LIMIT %(batch_size)s::bigint
), judged AS MATERIALIZED (
    SELECT
        batch.task_id, batch.attempt, batch.owner,
        EXISTS (
            SELECT FROM celery_pgbg.result AS result
            WHERE result.task_id = batch.task_id AND result.outcome_attempt = batch.attempt AND result.owner = batch.owner
                AND NOT result.forgotten
        ) OR (
            batch.task_meta IS NOT NULL
            AND (batch.task_meta -> 'kept_seconds' IS NULL OR batch.finished_at
                > (statement_timestamp() - (interval '1 second' * (batch.task_meta ->> 'kept_seconds')::double precision)))
            AND NOT EXISTS (
                SELECT FROM celery_pgbg.result AS result
                WHERE result.task_id = batch.task_id AND result.owner = batch.owner AND result.forgotten
            )
        ) AS is_result,
        EXISTS (
            SELECT FROM celery_pgbg.chord_part AS part
            WHERE part.task_id = batch.task_id AND part.outcome_attempt = batch.attempt AND part.owner = batch.owner
        ) AS is_chord_part
    FROM batch
), deleted AS (
    DELETE FROM celery_pgbg.outcome AS outcome
    USING judged
    WHERE outcome.task_id = judged.task_id AND outcome.attempt = judged.attempt AND outcome.owner = judged.owner
        AND NOT judged.is_result AND NOT judged.is_chord_part AND (SELECT ours FROM turn)
    RETURNING outcome.task_id, outcome.attempt, outcome.owner
), deleted_execution AS (
    DELETE FROM celery_pgbg.execution AS execution
    USING deleted
    WHERE execution.task_id = deleted.task_id AND execution.attempt = deleted.attempt AND execution.owner = deleted.owner
)
SELECT
    turn.ours,
    (SELECT count(*) FROM judged) AS looked_at,
    (SELECT count(*) FROM deleted) AS deleted,
    (SELECT count(*) FROM judged WHERE is_result) AS results,
    (SELECT count(*) FROM judged WHERE is_chord_part AND NOT is_result) AS chord_parts,
    0 AS running,
    last_one.finished_at AS last_at, last_one.task_id AS last_task_id, last_one.attempt AS last_attempt
FROM turn
LEFT JOIN (
    SELECT finished_at, task_id, attempt FROM batch ORDER BY finished_at DESC, task_id DESC, attempt DESC LIMIT 1
) AS last_one ON true
