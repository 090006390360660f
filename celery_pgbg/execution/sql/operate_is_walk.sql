-- Whether a task is a batched one that has begun. Any session.
SELECT EXISTS (SELECT FROM celery_pgbg.walk WHERE walk.task_id = %(task_id)s::text) AS is_walk
