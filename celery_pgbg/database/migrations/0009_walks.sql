-- How far batched tasks have come in their tables.

CREATE TABLE celery_pgbg.walk (
    -- the task that began the walk; a task that continues it has an id of its own
    walk_id text NOT NULL,
    owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    task_name text NOT NULL,
    -- the attempt whose background worker has it now
    task_id text NOT NULL,
    attempt integer NOT NULL,
    -- counts the background workers that have taken it: only the latest may do a batch
    turn integer NOT NULL DEFAULT 1,
    table_name text NOT NULL,
    key_columns text[] NOT NULL,
    -- keys as PostgreSQL prints them: the walk is after range_begin (NULL: from the first key), up to range_end (NULL:
    -- nothing to walk)
    range_begin text[],
    range_end text[],
    first_key text[],
    -- written in the transaction of each batch
    done_up_to text[],
    is_prepared boolean NOT NULL DEFAULT false,
    is_done boolean NOT NULL DEFAULT false,
    is_paused boolean NOT NULL DEFAULT false,
    batch_rows integer NOT NULL DEFAULT 100,
    -- rows that the statement changed, and rows whose keys were passed
    row_count bigint NOT NULL DEFAULT 0,
    walked_rows bigint NOT NULL DEFAULT 0,
    expected_rows bigint,
    batches bigint NOT NULL DEFAULT 0,
    seconds double precision NOT NULL DEFAULT 0,
    -- the arguments, as kombu encoded them, so that the task can be sent again
    message jsonb,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (walk_id, owner)
) WITH (fillfactor = 50);

COMMENT ON TABLE celery_pgbg.walk IS
    'How far each batched task has come, written in the transactions of its batches.';

CREATE INDEX walk_task_id ON celery_pgbg.walk (task_id);

CREATE TABLE celery_pgbg.walk_split (
    split_id text NOT NULL,
    owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    -- the last key of each range, the last range's too
    bounds jsonb NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (split_id, owner)
);

COMMENT ON TABLE celery_pgbg.walk_split IS
    'Where the ranges of a walk that several tasks share begin and end, decided by the first of them.';

ALTER TABLE celery_pgbg.walk ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON celery_pgbg.walk USING (owner = celery_pgbg.owner());
ALTER TABLE celery_pgbg.walk_split ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON celery_pgbg.walk_split USING (owner = celery_pgbg.owner());
