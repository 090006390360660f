-- Let a consumer take from a queue. The id is NULL where there is no such queue.
CREATE OR REPLACE FUNCTION celery_pgbg.subscribe(
    consumer_id bigint, queue_name text, tag text, OUT id integer, OUT max_priority integer
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE celery_pgbg.queue AS q SET expires_at = NULL
    WHERE q.name_key = celery_pgbg.name_key(subscribe.queue_name)
    RETURNING q.id, q.max_priority INTO subscribe.id, subscribe.max_priority;
    IF subscribe.id IS NOT NULL THEN
        INSERT INTO celery_pgbg.subscription (consumer_id, queue_id, tag)
        VALUES (subscribe.consumer_id, subscribe.id, subscribe.tag);
    END IF;
END;
$$;
