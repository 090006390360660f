-- Delete a queue and its messages; NULL if the queue is in use, or not empty, against the caller's condition.
SELECT celery_pgbg.delete_queue(%(name)s::text, %(if_unused)s::boolean, %(if_empty)s::boolean)
