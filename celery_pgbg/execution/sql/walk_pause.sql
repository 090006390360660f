-- Let a walk wait before its next batch, once the one in progress is committed. No row where there is none that is
-- not done. Any session.
UPDATE celery_pgbg.walk AS walk
SET is_paused = true
WHERE (walk.walk_id = %(task_id)s::text OR walk.task_id = %(task_id)s::text)
    AND walk.owner = celery_pgbg.owner() AND NOT walk.is_done
RETURNING walk.walk_id, walk.task_id, walk.attempt
