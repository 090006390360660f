-- What has become of orders that were placed, and of the background workers that may take them; on a launcher's session.
SELECT number, state, pid, cookie, workers, free_workers, turns, taken_ms_ago FROM celery_pgbg.look_at_work(
    task_ids => %(task_ids)s::text[],
    attempts => %(attempts)s::integer[],
    pools => %(pools)s::text[]
)
