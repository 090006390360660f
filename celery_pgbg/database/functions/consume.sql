-- Acknowledge messages, and take others: one call for both.
--
-- Runs on a consumer's session. Slots are the places to take from, in this order: a queue, one of its priorities, and
-- the lowest id that may wait there. Under an old snapshot, dead rows cannot be cleaned up; the lowest id avoids
-- reading them again. Slots of one group share a limit. Without acknowledgement a message is deleted as it is taken.
--
-- deliveries counts the earlier ones.
CREATE OR REPLACE FUNCTION celery_pgbg.consume(
    consumer_id bigint,
    acked bigint[],
    queue_ids integer[],
    priorities integer[],
    lowest_ids bigint[],
    no_acks boolean[],
    groups integer[],
    limits integer[]
) RETURNS TABLE (id bigint, slot integer, deliveries integer, envelope text, body bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    taken integer;
    ids bigint[];
BEGIN
    IF consume.acked <> '{}' THEN
        -- Not by "=": under an old snapshot the index for lost consumers has entries for all messages that this consumer
        -- ever took.
        DELETE FROM celery_pgbg.message AS m
        WHERE m.id = ANY (consume.acked) AND m.taken_by IS NOT DISTINCT FROM consume.consumer_id;
    END IF;
    FOR place IN 1 .. cardinality(consume.queue_ids) LOOP
        CONTINUE WHEN limits[groups[place]] <= 0;
        ids := ARRAY(
            SELECT m.id
            FROM celery_pgbg.message AS m
            -- Written so that only the index of waiting messages serves, whatever the statistics say.
            WHERE m.taken_by IS NULL
                AND (m.queue_id, m.priority, m.id) >= (queue_ids[place], priorities[place], lowest_ids[place])
                AND (m.queue_id, m.priority, m.id) <= (queue_ids[place], priorities[place], 9223372036854775807)
                AND (m.expires_at IS NULL OR m.expires_at > clock_timestamp())
            ORDER BY m.queue_id, m.priority, m.id
            LIMIT limits[groups[place]]
            FOR UPDATE SKIP LOCKED
        );
        taken := cardinality(ids);
        CONTINUE WHEN taken = 0;
        IF no_acks[place] THEN
            RETURN QUERY
            DELETE FROM celery_pgbg.message AS m WHERE m.id = ANY (ids)
            RETURNING m.id, place, m.deliveries, m.envelope, m.body;
        ELSE
            RETURN QUERY
            UPDATE celery_pgbg.message AS m SET taken_by = consume.consumer_id, deliveries = m.deliveries + 1
            WHERE m.id = ANY (ids)
            RETURNING m.id, place, m.deliveries - 1, m.envelope, m.body;
        END IF;
        limits[groups[place]] := limits[groups[place]] - taken;
    END LOOP;
END;
$$;
