-- Delete the waiting messages of a queue.
WITH deleted AS (
    DELETE FROM celery_pgbg.message
    WHERE taken_by IS NULL
        AND queue_id = (SELECT id FROM celery_pgbg.queue WHERE name_key = celery_pgbg.name_key(%(name)s::text))
    RETURNING 1
)
SELECT count(*) FROM deleted
