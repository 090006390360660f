-- The periodic work of each consumer: give back the messages of lost consumers, and remove expired messages and
-- queues.
--
-- Returns whether the calling consumer is still on record: after the end of its lease another consumer may have removed it.
-- If a consumer's lock is free, its session has ended.
CREATE OR REPLACE FUNCTION celery_pgbg.tend_broker(
    consumer_id bigint, lease_ms bigint, max_deliveries integer, thorough boolean
) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    is_known boolean;
    lost bigint;
    expired record;
BEGIN
    IF tend_broker.lease_ms IS NOT NULL THEN
        UPDATE celery_pgbg.consumer AS c
        SET leased_until = clock_timestamp() + interval '1 millisecond' * tend_broker.lease_ms
        WHERE c.id = tend_broker.consumer_id;
        is_known := FOUND;
    ELSE
        is_known := EXISTS (SELECT FROM celery_pgbg.consumer AS c WHERE c.id = tend_broker.consumer_id);
    END IF;
    FOR lost IN
        SELECT c.id FROM celery_pgbg.consumer AS c
        WHERE c.id <> tend_broker.consumer_id AND (c.leased_until IS NULL OR c.leased_until < clock_timestamp())
    LOOP
        -- A lock of a stranger proves nothing.
        CONTINUE WHEN NOT pg_try_advisory_xact_lock(celery_pgbg.lock_key('consumer', lost::text))
            AND celery_pgbg.stranger(celery_pgbg.lock_key('consumer', lost::text)) IS NULL;
        -- Meanwhile the lease may have been renewed, or another session may have done this.
        PERFORM FROM celery_pgbg.consumer AS c
        WHERE c.id = lost AND (c.leased_until IS NULL OR c.leased_until < clock_timestamp())
        FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        PERFORM celery_pgbg.give_back(lost, NULL, max_deliveries);
        PERFORM celery_pgbg.unsubscribe(lost, NULL);
        -- The record stays until later if a message is just being deleted.
        DELETE FROM celery_pgbg.consumer AS c
        WHERE c.id = lost AND NOT EXISTS (SELECT FROM celery_pgbg.message AS m WHERE m.taken_by = lost);
    END LOOP;
    FOR expired IN
        SELECT q.name FROM celery_pgbg.queue AS q
        WHERE q.expires_at < clock_timestamp()
            AND NOT EXISTS (SELECT FROM celery_pgbg.subscription AS s WHERE s.queue_id = q.id)
        FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM celery_pgbg.delete_queue(expired.name);
    END LOOP;
    DELETE FROM celery_pgbg.message AS m WHERE m.id IN (
        SELECT e.id FROM celery_pgbg.message AS e
        WHERE e.expires_at < clock_timestamp() AND e.taken_by IS NULL
            -- Messages that expired earlier are gone, except those given back late; an old snapshot may keep their rows.
            AND e.expires_at > clock_timestamp() - CASE WHEN thorough THEN interval '10 years' ELSE interval '1 minute' END
        FOR UPDATE SKIP LOCKED
    );
    IF thorough THEN
        -- A message may have been sent to a queue just as the queue was deleted. One probe of the index for each queue.
        DELETE FROM celery_pgbg.message AS m WHERE m.taken_by IS NULL AND m.queue_id IN (
            WITH RECURSIVE present AS (
                SELECT min(first.queue_id) AS id FROM celery_pgbg.message AS first WHERE first.taken_by IS NULL
                UNION ALL
                SELECT (
                    SELECT min(later.queue_id) FROM celery_pgbg.message AS later
                    WHERE later.taken_by IS NULL AND later.queue_id > present.id
                )
                FROM present WHERE present.id IS NOT NULL
            )
            SELECT present.id FROM present
            WHERE NOT EXISTS (SELECT FROM celery_pgbg.queue AS q WHERE q.id = present.id)
        );
    END IF;
    RETURN is_known;
END;
$$;
