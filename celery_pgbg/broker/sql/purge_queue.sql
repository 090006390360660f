-- Delete the waiting messages of a queue. Those that lost consumers had wait too.
WITH deleted AS (
    DELETE FROM celery_pgbg.message
    WHERE (taken_by IS NULL OR taken_by = ANY (ARRAY(SELECT celery_pgbg.lost_consumers())))
        AND queue_id = (SELECT id FROM celery_pgbg.queue WHERE name_key = celery_pgbg.name_key(%(name)s::text))
    RETURNING 1
)
SELECT count(*) FROM deleted
