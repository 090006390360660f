-- Let a walk continue; returns what else is needed for that. Any session.
UPDATE celery_pgbg.walk AS walk
SET is_paused = false
WHERE (walk.walk_id = %(task_id)s::text OR walk.task_id = %(task_id)s::text) AND walk.owner = celery_pgbg.owner()
RETURNING walk.walk_id, walk.task_name, walk.task_id, walk.attempt, walk.is_done, walk.message
