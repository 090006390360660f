-- Send a task to Celery from SQL, in the calling transaction: the message exists from the commit on.
--
-- If a relay forwards to another broker, and no program of Celery has declared that queue here, the message goes to the outbox.
-- Before the first relay, nobody knows the broker: the message waits in a queue made here, whose time of declaration is
-- -infinity. Whoever comes first gets it: a program that declares the queue, or a relay. Returns the task id. args is a JSON
-- array, kwargs a JSON object. Senders call this function: so it runs with the rights of its owner.
CREATE OR REPLACE FUNCTION celery_pgbg.send_task(
    name text,
    args jsonb DEFAULT '[]',
    kwargs jsonb DEFAULT '{}',
    queue text DEFAULT 'celery',
    task_id text DEFAULT NULL,
    priority integer DEFAULT 0,
    eta timestamptz DEFAULT NULL,
    expires timestamptz DEFAULT NULL,
    ignore_result boolean DEFAULT false
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    outbox CONSTANT text := 'celery_pgbg.outbox';
    relayed boolean := false;
    id CONSTANT text := coalesce(send_task.task_id, gen_random_uuid()::text);
    origin CONSTANT text := 'postgresql ' || pg_backend_pid();
    content CONSTANT text := jsonb_build_array(args, kwargs, jsonb_build_object(
        'callbacks', NULL, 'errbacks', NULL, 'chain', NULL, 'chord', NULL
    ))::text;
    headers CONSTANT jsonb := jsonb_build_object(
        'lang', 'py', 'task', name, 'id', id, 'shadow', NULL,
        'eta', to_char(eta AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
        'expires', to_char(expires AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
        'group', NULL, 'group_index', NULL, 'retries', 0, 'timelimit', jsonb_build_array(NULL, NULL),
        'root_id', id, 'parent_id', NULL, 'argsrepr', left(args::text, 1024), 'kwargsrepr', left(kwargs::text, 1024),
        'origin', origin, 'ignore_result', ignore_result, 'replaced_task_nesting', 0,
        'stamped_headers', NULL, 'stamps', '{}'::jsonb
    );
    envelope CONSTANT text := jsonb_build_object(
        'exchange', '', 'routing_key', queue, 'content_type', 'application/json', 'content_encoding', 'utf-8',
        'headers', headers, 'properties', jsonb_build_object(
            'correlation_id', id, 'reply_to', '', 'delivery_mode', 2, 'priority', priority
        )
    )::text;
BEGIN
    IF name IS NULL OR jsonb_typeof(args) IS DISTINCT FROM 'array' OR jsonb_typeof(kwargs) IS DISTINCT FROM 'object' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'send_task needs the name of a task, args as a JSON array and kwargs as a JSON object';
    END IF;
    IF NOT EXISTS (
        SELECT FROM celery_pgbg.queue AS q WHERE q.name_key = celery_pgbg.name_key(queue) AND q.declared_at > '-infinity'
    ) THEN
        relayed := EXISTS (
            SELECT FROM celery_pgbg.queue AS q WHERE q.name_key = celery_pgbg.name_key(outbox) AND q.declared_at > '-infinity'
        );
        IF NOT relayed THEN
            INSERT INTO celery_pgbg.queue (name, name_key, auto_delete, max_priority, declared_at)
            VALUES (queue, celery_pgbg.name_key(queue), false, 0, '-infinity')
            ON CONFLICT (name_key) DO NOTHING;
        END IF;
    END IF;
    PERFORM celery_pgbg.publish('', CASE WHEN relayed THEN outbox ELSE queue END, priority, NULL, false, envelope, convert_to(content, 'UTF8'));
    RETURN id;
END;
$$;
