-- Forget a task's result. An outcome stays, because it prevents a redelivery from running the statement again; a row
-- marked as forgotten then hides it. One transaction, on any session.
WITH latest AS MATERIALIZED (
    SELECT outcome.attempt
    FROM celery_pgbg.outcome AS outcome
    WHERE outcome.owner = (SELECT celery_pgbg.owner()) AND outcome.task_id = %(task_id)s::text AND outcome.succeeded
    ORDER BY outcome.attempt DESC
    LIMIT 1
), removed AS (
    DELETE FROM celery_pgbg.result
    WHERE owner = (SELECT celery_pgbg.owner()) AND task_id = %(task_id)s::text AND NOT EXISTS (SELECT FROM latest)
)
INSERT INTO celery_pgbg.result AS result
    (task_id, status, content_type, content_encoding, outcome_attempt, forgotten)
SELECT %(task_id)s::text, 'PENDING', '', '', latest.attempt, true
FROM latest
ON CONFLICT (task_id, owner) DO UPDATE SET
    status = excluded.status, content_type = '', content_encoding = '', value = NULL,
    outcome_attempt = excluded.outcome_attempt, details = NULL, traceback = NULL, date_done = NULL,
    group_id = NULL, parent_id = NULL, name = NULL, worker = NULL, retries = NULL, queue = NULL,
    forgotten = true, stored_at = excluded.stored_at
