-- Delete rows of the result backend older than the limits, unless another session does so. NULL as a limit keeps those
-- rows. A row that hides a forgotten outcome stays as long as the outcome. An expired outcome that was kept only as
-- the value of a result is deleted together with the result. One transaction, on any session.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(celery_pgbg.lock_key('delete expired results', ''))
        OR celery_pgbg.stranger(celery_pgbg.lock_key('delete expired results', '')) IS NOT NULL AS ours
), old_result AS (
    DELETE FROM celery_pgbg.result AS result
    WHERE (SELECT ours FROM turn)
        -- first by the index, then by each limit
        AND stored_at < (now() - (interval '1 millisecond' * LEAST(%(failure_age_ms)s::bigint, %(age_ms)s::bigint)))
        AND stored_at < (now() - (interval '1 millisecond' * (
            CASE WHEN status = 'FAILURE' THEN %(failure_age_ms)s::bigint ELSE %(age_ms)s::bigint END
        )))
        AND NOT (forgotten AND EXISTS (
            SELECT FROM celery_pgbg.outcome AS outcome WHERE outcome.task_id = result.task_id AND outcome.owner = result.owner
        ))
    RETURNING result.task_id, result.owner, result.outcome_attempt
), old_outcome AS (
    DELETE FROM celery_pgbg.outcome AS outcome
    USING old_result, celery_pgbg.expiry_mark AS mark
    WHERE outcome.task_id = old_result.task_id AND outcome.attempt = old_result.outcome_attempt
        AND outcome.owner = old_result.owner
        AND mark.role = quote_ident(CURRENT_USER)::regrole AND outcome.finished_at < mark.judged_up_to
        AND NOT EXISTS (
            SELECT FROM celery_pgbg.chord_part AS part
            WHERE part.task_id = outcome.task_id AND part.outcome_attempt = outcome.attempt
                AND part.owner = outcome.owner
        )
    RETURNING outcome.task_id, outcome.attempt, outcome.owner
), old_execution AS (
    DELETE FROM celery_pgbg.execution AS execution
    USING old_outcome
    WHERE execution.task_id = old_outcome.task_id AND execution.attempt = old_outcome.attempt
        AND execution.owner = old_outcome.owner
), old_group AS (
    DELETE FROM celery_pgbg.result_group
    WHERE (SELECT ours FROM turn) AND stored_at < (now() - (interval '1 millisecond' * %(chord_age_ms)s::bigint))
), old_chord AS (
    DELETE FROM celery_pgbg.chord
    WHERE (SELECT ours FROM turn) AND stored_at < (now() - (interval '1 millisecond' * %(chord_age_ms)s::bigint))
    RETURNING group_id, owner
)
DELETE FROM celery_pgbg.chord_part
USING old_chord
WHERE chord_part.group_id = old_chord.group_id AND chord_part.owner = old_chord.owner
