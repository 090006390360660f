-- Let an attempt be launched again: delete its outcome if that is a cancel, left by stop_attempt or by a wait that was
-- broken off. Any session.
DELETE FROM celery_pgbg.outcome
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner()) AND settled_as = ANY(%(reasons)s::text[])
