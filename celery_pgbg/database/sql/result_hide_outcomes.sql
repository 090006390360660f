-- Before the launch of a statement whose outcome is not its task's result: let readers wait for the result that Celery
-- will store. One transaction, on any session.
INSERT INTO celery_pgbg.result AS result (task_id, status, content_type, content_encoding, outcome_attempt)
VALUES (%(task_id)s::text, 'PENDING', '', '', -1)
ON CONFLICT (task_id, owner) DO UPDATE SET outcome_attempt = -1
WHERE result.status <> ALL (ARRAY['SUCCESS', 'FAILURE', 'REVOKED'])
