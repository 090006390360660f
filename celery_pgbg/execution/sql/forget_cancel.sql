-- Let an attempt be launched again: take back the cancel that stop_attempt or a wait that was broken off left as its
-- outcome, no other outcome. Any session.
DELETE FROM celery_pgbg.outcome
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner()) AND settled_as = ANY(%(reasons)s::text[])
