-- Give messages of a consumer back to all consumers: some messages, or all if ids is NULL. Returns their number.
--
-- Messages that were delivered max_deliveries times go to the queue of dead letters instead, unless that is NULL. A
-- message stays as it is while a background worker deletes it together with the outcome of its task. Consumers remember
-- the lowest id that may wait, so they are always notified.
CREATE OR REPLACE FUNCTION celery_pgbg.give_back(consumer_id bigint, ids bigint[], max_deliveries integer)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    given bigint;
    dead_letters integer;
    returned_ids integer[];
BEGIN
    IF ids IS NULL THEN
        ids := ARRAY(
            SELECT m.id FROM celery_pgbg.message AS m
            WHERE m.taken_by = give_back.consumer_id
            FOR UPDATE SKIP LOCKED
        );
    ELSE
        ids := ARRAY(
            SELECT m.id FROM celery_pgbg.message AS m
            WHERE m.id = ANY (give_back.ids) AND m.taken_by IS NOT DISTINCT FROM give_back.consumer_id
            FOR UPDATE SKIP LOCKED
        );
    END IF;
    IF max_deliveries IS NOT NULL AND EXISTS (
        SELECT FROM celery_pgbg.message AS m
        WHERE m.id = ANY (ids) AND m.deliveries >= max_deliveries
    ) THEN
        SELECT declared.id INTO dead_letters FROM celery_pgbg.declare_queue('celery_pgbg.dead_letters') AS declared;
    END IF;
    WITH back AS (
        UPDATE celery_pgbg.message AS m SET
            taken_by = NULL,
            queue_id = CASE WHEN m.deliveries >= max_deliveries THEN dead_letters ELSE m.queue_id END,
            priority = CASE WHEN m.deliveries >= max_deliveries THEN 0 ELSE m.priority END,
            expires_at = CASE WHEN m.deliveries >= max_deliveries THEN NULL ELSE m.expires_at END,
            dead_from = CASE WHEN m.deliveries >= max_deliveries
                THEN (SELECT q.name FROM celery_pgbg.queue AS q WHERE q.id = m.queue_id) ELSE m.dead_from END
        WHERE m.id = ANY (ids)
        RETURNING m.queue_id
    )
    SELECT count(*), array_agg(DISTINCT back.queue_id) INTO given, returned_ids FROM back;
    PERFORM pg_notify('celery_pgbg_queue_' || returned.id, 'returned') FROM unnest(returned_ids) AS returned (id);
    RETURN given;
END;
$$;
