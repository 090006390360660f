-- Delete a queue and its messages; NULL where it is not unused, or not empty, as asked for.
SELECT celery_pgbg.delete_queue(%(name)s::text, %(if_unused)s::boolean, %(if_empty)s::boolean)
