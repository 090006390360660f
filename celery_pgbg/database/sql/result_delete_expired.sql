-- Delete what the result backend stored before the limits, unless another session is at it. NULL
-- for a limit keeps what it concerns. What hides a forgotten outcome stays as long as the outcome.
-- One transaction, on any session.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(celery_pgbg.lock_key('delete expired results', '')) AS ours
), old_result AS (
    DELETE FROM celery_pgbg.result AS result
    WHERE (SELECT ours FROM turn)
        AND stored_at < now() - interval '1 millisecond' * (
            CASE WHEN status = 'FAILURE' THEN %(failure_age_ms)s::bigint ELSE %(age_ms)s::bigint END
        )
        AND NOT (forgotten AND EXISTS (
            SELECT FROM celery_pgbg.outcome AS outcome WHERE outcome.task_id = result.task_id
        ))
), old_group AS (
    DELETE FROM celery_pgbg.result_group
    WHERE (SELECT ours FROM turn) AND stored_at < now() - interval '1 millisecond' * %(chord_age_ms)s::bigint
), old_chord AS (
    DELETE FROM celery_pgbg.chord
    WHERE (SELECT ours FROM turn) AND stored_at < now() - interval '1 millisecond' * %(chord_age_ms)s::bigint
    RETURNING group_id
)
DELETE FROM celery_pgbg.chord_part
WHERE group_id IN (SELECT old_chord.group_id FROM old_chord)
