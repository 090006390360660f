-- Send a message to the queues that an exchange and a routing key lead to; without an exchange, to the queue of that
-- name. Returns the number of these queues. A message without a queue is dropped, as in RabbitMQ.
--
-- A sleeping consumer shares a lock. Only then is a notification sent, because notifications make commits wait for each
-- other in the whole cluster. A Celery worker's heartbeat, an event each two seconds, notifies no consumer: the next look
-- finds it within two and a half seconds, and Celery waits for four.
-- Senders call this function, and may not read the tables: so it runs with the rights of its owner.
--
-- ``relaxed``: the transaction is ours alone, and its commit need not wait for the disk.
CREATE OR REPLACE FUNCTION celery_pgbg.publish(
    exchange_name text,
    routing_key text,
    priority integer,
    ttl_ms bigint,
    relaxed boolean,
    envelope text,
    body bytea
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    queues integer := 0;
    target record;
    sleeper_key bigint;
BEGIN
    IF publish.relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    FOR target IN
        SELECT q.id, q.max_priority, q.message_ttl_ms
        FROM celery_pgbg.queue AS q
        WHERE publish.exchange_name = '' AND q.name_key = celery_pgbg.name_key(publish.routing_key)
        UNION ALL
        SELECT q.id, q.max_priority, q.message_ttl_ms
        FROM celery_pgbg.queue AS q
        WHERE publish.exchange_name <> '' AND q.id IN (
            SELECT b.queue_id
            FROM celery_pgbg.binding AS b
            JOIN celery_pgbg.exchange AS e ON e.id = b.exchange_id
            WHERE e.name_key = celery_pgbg.name_key(publish.exchange_name) AND CASE e.type
                WHEN 'fanout' THEN true
                WHEN 'topic' THEN (CASE publish.routing_key WHEN '' THEN '' ELSE publish.routing_key || '.' END)
                    ~ b.pattern
                ELSE b.routing_key = publish.routing_key
            END
        )
    LOOP
        INSERT INTO celery_pgbg.message (queue_id, priority, expires_at, envelope, body)
        VALUES (
            target.id,
            least(greatest(publish.priority, 0), target.max_priority),
            clock_timestamp() + interval '1 millisecond' * least(publish.ttl_ms, target.message_ttl_ms),
            publish.envelope,
            publish.body
        );
        queues := queues + 1;
        CONTINUE WHEN publish.relaxed AND publish.routing_key = 'worker.heartbeat';
        sleeper_key := celery_pgbg.lock_key('sleeper', target.id::text);
        IF pg_try_advisory_lock(sleeper_key) THEN
            PERFORM pg_advisory_unlock(sleeper_key);
        ELSE
            PERFORM pg_notify('celery_pgbg_queue_' || target.id, '');
        END IF;
    END LOOP;
    RETURN queues;
END;
$$;
