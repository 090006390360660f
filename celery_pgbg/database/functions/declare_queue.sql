-- Make a queue, unless it exists; an existing queue is not changed, except that its expiry time begins again. A queue that
-- only send_task has made counts as not declared: it gets the arguments of this declaration.
--
-- For senders too, which may not change existing queues: so it runs with the rights of its owner. With passive,
-- nothing is made, counts are exact, and the id is NULL if the queue does not exist.
CREATE OR REPLACE FUNCTION celery_pgbg.declare_queue(
    name text,
    passive boolean DEFAULT false,
    auto_delete boolean DEFAULT false,
    max_priority integer DEFAULT 0,
    message_ttl_ms bigint DEFAULT NULL,
    expires_ms bigint DEFAULT NULL,
    OUT id integer,
    OUT messages bigint,
    OUT consumers bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    key CONSTANT bytea := celery_pgbg.name_key(declare_queue.name);
    unused_ms bigint;
    is_declared boolean;
    lost bigint[];
BEGIN
    -- a queue that is deleted after its last consumer expires too, if that consumer was lost
    SELECT q.id, coalesce(q.expires_ms, CASE WHEN q.auto_delete THEN 10000 END), q.declared_at > '-infinity' OR starts_with(q.name, 'celery_pgbg.')
    INTO declare_queue.id, unused_ms, is_declared
    FROM celery_pgbg.queue AS q WHERE q.name_key = key;
    IF declare_queue.id IS NULL AND NOT declare_queue.passive THEN
        INSERT INTO celery_pgbg.queue AS q
            (name, name_key, auto_delete, max_priority, message_ttl_ms, expires_ms, expires_at)
        VALUES (
            declare_queue.name, key, declare_queue.auto_delete,
            least(greatest(coalesce(declare_queue.max_priority, 0), 0), 255),
            declare_queue.message_ttl_ms, declare_queue.expires_ms,
            clock_timestamp() + interval '1 millisecond' * declare_queue.expires_ms
        )
        ON CONFLICT (name_key) DO UPDATE SET expires_at = q.expires_at
        RETURNING q.id, q.declared_at > '-infinity' INTO declare_queue.id, is_declared;
    ELSIF unused_ms IS NOT NULL AND NOT declare_queue.passive THEN
        UPDATE celery_pgbg.queue AS q
        SET expires_at = clock_timestamp() + interval '1 millisecond' * unused_ms
        WHERE q.id = declare_queue.id AND q.expires_at IS NOT NULL;
    END IF;
    IF NOT declare_queue.passive AND NOT is_declared THEN
        UPDATE celery_pgbg.queue AS q
        SET auto_delete = declare_queue.auto_delete,
            max_priority = least(greatest(coalesce(declare_queue.max_priority, 0), 0), 255),
            message_ttl_ms = declare_queue.message_ttl_ms,
            expires_ms = declare_queue.expires_ms,
            expires_at = clock_timestamp() + interval '1 millisecond' * declare_queue.expires_ms,
            declared_at = clock_timestamp()
        WHERE q.id = declare_queue.id AND q.declared_at = '-infinity';
    END IF;
    -- While no consumer lives, nobody gives back what lost consumers had.
    lost := CASE WHEN declare_queue.passive THEN ARRAY(SELECT celery_pgbg.lost_consumers()) ELSE '{}' END;
    consumers := (
        SELECT count(*) FROM celery_pgbg.subscription AS s
        WHERE s.queue_id = declare_queue.id AND s.consumer_id <> ALL (lost)
    );
    messages := (
        SELECT count(*) FROM (
            SELECT FROM celery_pgbg.message AS m
            WHERE m.queue_id = declare_queue.id AND m.taken_by IS NULL
            LIMIT CASE WHEN declare_queue.passive THEN NULL ELSE 1000 END
        ) AS counted
    ) + (
        SELECT count(*) FROM celery_pgbg.message AS m
        WHERE m.queue_id = declare_queue.id AND m.taken_by = ANY (lost)
    );
END;
$$;
