-- Delete a queue with its bindings and messages, also taken ones. Returns the number of waiting messages.
CREATE OR REPLACE FUNCTION celery_pgbg.delete_queue(
    name text, if_unused boolean DEFAULT false, if_empty boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    doomed integer;
    waiting bigint;
BEGIN
    SELECT q.id INTO doomed
    FROM celery_pgbg.queue AS q WHERE q.name_key = celery_pgbg.name_key(delete_queue.name)
    FOR UPDATE;
    IF if_unused AND EXISTS (SELECT FROM celery_pgbg.subscription AS s WHERE s.queue_id = doomed)
        OR if_empty AND EXISTS (SELECT FROM celery_pgbg.message AS m WHERE m.queue_id = doomed AND m.taken_by IS NULL)
    THEN
        RETURN NULL;
    END IF;
    WITH deleted AS (
        DELETE FROM celery_pgbg.message AS m WHERE m.queue_id = doomed AND m.taken_by IS NULL RETURNING 1
    )
    SELECT count(*) INTO waiting FROM deleted;
    DELETE FROM celery_pgbg.queue AS q WHERE q.id = doomed;
    RETURN waiting;
END;
$$;
