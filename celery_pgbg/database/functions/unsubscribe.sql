-- End subscriptions of a consumer: one, or all of a lost consumer if the tag is NULL. A queue that loses its last
-- subscription is deleted or begins to expire, as it was declared.
--
-- A queue of a lost consumer is not deleted at once: its process may just be connecting again. It may have declared the
-- queue, and is about to bind it.
CREATE OR REPLACE FUNCTION celery_pgbg.unsubscribe(consumer_id bigint, tag text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    left_queue record;
BEGIN
    FOR left_queue IN
        WITH ended AS (
            DELETE FROM celery_pgbg.subscription AS s
            WHERE s.consumer_id = unsubscribe.consumer_id AND s.tag = coalesce(unsubscribe.tag, s.tag)
            RETURNING s.queue_id
        )
        SELECT q.id, q.name, q.auto_delete, q.expires_ms
        FROM celery_pgbg.queue AS q
        WHERE q.id IN (SELECT ended.queue_id FROM ended) AND (q.auto_delete OR q.expires_ms IS NOT NULL)
        ORDER BY q.id
        FOR UPDATE
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM celery_pgbg.subscription AS s WHERE s.queue_id = left_queue.id);
        IF left_queue.auto_delete AND unsubscribe.tag IS NOT NULL THEN
            PERFORM celery_pgbg.delete_queue(left_queue.name);
        ELSE
            UPDATE celery_pgbg.queue AS q
            SET expires_at = clock_timestamp() + interval '1 millisecond'
                * CASE WHEN left_queue.auto_delete THEN least(left_queue.expires_ms, 10000) ELSE left_queue.expires_ms END
            WHERE q.id = left_queue.id;
        END IF;
    END LOOP;
END;
$$;
