-- Orders that reusable background workers take, and what each of these background workers runs.

DROP TABLE celery_pgbg.bgworker;
DROP FUNCTION IF EXISTS celery_pgbg.hand_over(
    bigint, integer, integer, bigint, text, integer, text, text, text, text, text, boolean, text, text, bigint, boolean
);
DROP FUNCTION IF EXISTS celery_pgbg.launch_reusable(
    text, text, integer, text, integer, text, text, text, text, text, boolean, text, text, bigint, boolean
);
DROP PROCEDURE IF EXISTS celery_pgbg.serve_v1(bigint, xid8);

-- Unlogged, both: a crash of the server ends the background workers as well, and who waits for an order places it again.
CREATE UNLOGGED TABLE celery_pgbg.work (
    id bigint GENERATED ALWAYS AS IDENTITY,
    -- the one that wrote the row, and the only one whose background workers execute what is in it
    role regrole NOT NULL DEFAULT quote_ident(CURRENT_USER)::regrole,
    owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    -- those background workers that may take it
    pool text NOT NULL,
    task_id text NOT NULL,
    attempt integer NOT NULL,
    -- its application_name
    shown_as text NOT NULL,
    preamble text,
    statement text NOT NULL,
    is_plain_query boolean NOT NULL,
    returns text,
    role_name text,
    max_result_bytes bigint NOT NULL,
    notify boolean NOT NULL,
    -- of the broker, which ends with the statement
    message_id bigint,
    -- see the outcome
    task_meta jsonb,
    attempt_key bigint NOT NULL,
    -- nothing of this attempt was launched before
    is_first boolean NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (task_id, attempt, owner)
);

COMMENT ON TABLE celery_pgbg.work IS
    'Orders of tasks that a reusable background worker takes, which deletes the row. They wait for milliseconds.';

CREATE INDEX work_to_take ON celery_pgbg.work (pool, id);

CREATE UNLOGGED TABLE celery_pgbg.bgworker (
    id bigint GENERATED ALWAYS AS IDENTITY,
    role regrole NOT NULL DEFAULT quote_ident(CURRENT_USER)::regrole,
    owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    pool text NOT NULL,
    -- its handle, and when its process began, which it says itself with its first task
    pid integer,
    cookie bigint,
    backend_start timestamptz,
    launcher_pid integer NOT NULL DEFAULT pg_backend_pid(),
    -- it takes no order any more
    is_stopped boolean NOT NULL DEFAULT false,
    -- false once it has looked for an order and found none
    is_busy boolean NOT NULL DEFAULT false,
    -- how many orders it has taken, and the latest; what it runs where is_busy
    turn integer NOT NULL DEFAULT 0,
    task_id text,
    attempt integer,
    -- the beginning of it, to be shown
    statement text,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, role)
) WITH (fillfactor = 50);

COMMENT ON TABLE celery_pgbg.bgworker IS
    'Reusable background workers and the latest order that each has taken. One that ends by itself deletes its row.';

ALTER TABLE celery_pgbg.work ENABLE ROW LEVEL SECURITY;
ALTER TABLE celery_pgbg.bgworker ENABLE ROW LEVEL SECURITY;

-- Who shares rows sees and may delete them; what is executed is written by the role itself.
CREATE POLICY own_rows ON celery_pgbg.work
USING (role = quote_ident(CURRENT_USER)::regrole OR owner = (SELECT celery_pgbg.owner()))
WITH CHECK (role = quote_ident(CURRENT_USER)::regrole);
CREATE POLICY own_rows ON celery_pgbg.bgworker
USING (role = quote_ident(CURRENT_USER)::regrole OR owner = (SELECT celery_pgbg.owner()))
WITH CHECK (role = quote_ident(CURRENT_USER)::regrole);
