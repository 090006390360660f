-- Pause a walk before its next batch, once the batch in progress is committed. No row without an unfinished walk. Any
-- session.
UPDATE celery_pgbg.walk AS walk
SET is_paused = true
WHERE (walk.walk_id = %(task_id)s::text OR walk.task_id = %(task_id)s::text)
    AND walk.owner = celery_pgbg.owner() AND NOT walk.is_done
RETURNING walk.walk_id, walk.task_id, walk.attempt
