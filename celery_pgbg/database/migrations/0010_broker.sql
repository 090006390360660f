-- What the broker keeps: queues, exchanges, bindings, messages, and the sessions that consume them.

CREATE TABLE celery_pgbg.queue (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- of any length: the unique index is on its hash
    name text NOT NULL,
    name_key bytea NOT NULL UNIQUE,
    auto_delete boolean NOT NULL,
    max_priority smallint NOT NULL,
    message_ttl_ms bigint,
    expires_ms bigint,
    -- when the queue ends without a consumer; NULL if never, and while it has a consumer
    expires_at timestamptz,
    declared_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE celery_pgbg.queue IS 'The queues of the broker.';

-- Messages sent in a caller's transaction or by send_task, if the app has another broker; a relay forwards them. The time
-- is -infinity until a relay has run.
INSERT INTO celery_pgbg.queue (name, name_key, auto_delete, max_priority, declared_at)
VALUES ('celery_pgbg.outbox', pg_catalog.sha256(pg_catalog.convert_to('celery_pgbg.outbox', 'UTF8')), false, 0, '-infinity');

CREATE TABLE celery_pgbg.exchange (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    name_key bytea NOT NULL UNIQUE,
    -- direct, topic, fanout
    type text NOT NULL
);

COMMENT ON TABLE celery_pgbg.exchange IS 'The exchanges of the broker.';

CREATE TABLE celery_pgbg.binding (
    exchange_id integer NOT NULL REFERENCES celery_pgbg.exchange ON DELETE CASCADE,
    queue_id integer NOT NULL REFERENCES celery_pgbg.queue ON DELETE CASCADE,
    routing_key text NOT NULL,
    routing_key_hash bytea NOT NULL,
    -- of a topic: what a routing key must match, with a dot after each word
    pattern text NOT NULL,
    PRIMARY KEY (exchange_id, queue_id, routing_key_hash)
);

COMMENT ON TABLE celery_pgbg.binding IS 'Which messages of an exchange go to which queues.';

CREATE INDEX binding_queue ON celery_pgbg.binding (queue_id);

CREATE TABLE celery_pgbg.message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_id integer NOT NULL,
    priority smallint NOT NULL,
    deliveries integer NOT NULL DEFAULT 0,
    -- the consumer that has it; NULL while it waits
    taken_by bigint,
    sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    -- of a dead letter: the queue it was taken from too often
    dead_from text,
    -- JSON in ASCII: headers, properties, types, exchange, routing key
    envelope text NOT NULL,
    body bytea NOT NULL
) WITH (
    -- Each message leaves two dead rows. Few rows are vacuumed quickly, and without pauses.
    autovacuum_vacuum_scale_factor = 0.1,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 1,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE celery_pgbg.message IS 'The messages of the broker, until they are acknowledged.';

CREATE INDEX message_waiting ON celery_pgbg.message (queue_id, priority, id) WHERE taken_by IS NULL;
CREATE INDEX message_taken ON celery_pgbg.message (taken_by) WHERE taken_by IS NOT NULL;
CREATE INDEX message_expires ON celery_pgbg.message (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE celery_pgbg.consumer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    pid integer NOT NULL DEFAULT pg_backend_pid(),
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- behind a pooler in transaction mode, where no lock shows whether the consumer lives; else NULL
    leased_until timestamptz
);

COMMENT ON TABLE celery_pgbg.consumer IS
    'The sessions that consume, each with an advisory lock that shows that it lives.';

CREATE TABLE celery_pgbg.subscription (
    consumer_id bigint NOT NULL REFERENCES celery_pgbg.consumer ON DELETE CASCADE,
    queue_id integer NOT NULL REFERENCES celery_pgbg.queue ON DELETE CASCADE,
    tag text NOT NULL,
    PRIMARY KEY (consumer_id, tag)
);

COMMENT ON TABLE celery_pgbg.subscription IS 'Which consumers take from which queues.';

CREATE INDEX subscription_queue ON celery_pgbg.subscription (queue_id);
