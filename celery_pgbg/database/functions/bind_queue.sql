-- Let a queue get messages of an exchange. Returns what is missing: exchange, queue, or NULL.
--
-- A topic's pattern is a regular expression over words that each end with a dot: "*" is one word, "#" any number.
-- For senders too: so it runs with the rights of its owner.
CREATE OR REPLACE FUNCTION celery_pgbg.bind_queue(queue_name text, exchange_name text, routing_key text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    bound_exchange CONSTANT integer := (
        SELECT e.id FROM celery_pgbg.exchange AS e WHERE e.name_key = celery_pgbg.name_key(exchange_name)
    );
    bound_queue CONSTANT integer := (
        SELECT q.id FROM celery_pgbg.queue AS q WHERE q.name_key = celery_pgbg.name_key(queue_name)
    );
    bound_pattern text;
BEGIN
    IF bound_exchange IS NULL OR bound_queue IS NULL THEN
        RETURN CASE WHEN bound_exchange IS NULL THEN 'exchange' ELSE 'queue' END;
    END IF;
    SELECT coalesce(string_agg(
        CASE word
            WHEN '*' THEN '[^.]*\.'
            WHEN '#' THEN '(?:[^.]*\.)*'
            ELSE regexp_replace(word, '([][(){}*+?^$|\\])', '\\\1', 'g') || '\.'
        END, '' ORDER BY place
    ), '') INTO bound_pattern
    FROM string_to_table(bind_queue.routing_key, '.') WITH ORDINALITY AS words (word, place);
    INSERT INTO celery_pgbg.binding (exchange_id, queue_id, routing_key, routing_key_hash, pattern)
    VALUES (
        bound_exchange, bound_queue, bind_queue.routing_key,
        celery_pgbg.name_key(bind_queue.routing_key), '^' || bound_pattern || '$'
    )
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END;
$$;
