-- Orders that reusable background workers take, and what each of these background workers runs.

DROP TABLE celery_pgbg.bgworker;
DROP FUNCTION IF EXISTS celery_pgbg.hand_over(
    bigint, integer, integer, bigint, text, integer, text, text, text, text, text, boolean, text, text, bigint, boolean
);
DROP FUNCTION IF EXISTS celery_pgbg.launch_reusable(
    text, text, integer, text, integer, text, text, text, text, text, boolean, text, text, bigint, boolean
);
DROP PROCEDURE IF EXISTS celery_pgbg.serve_v1(bigint, xid8);

-- Both are unlogged: a crash of the server ends the background workers too, and Celery workers place their orders again.
CREATE UNLOGGED TABLE celery_pgbg.work (
    id bigint GENERATED ALWAYS AS IDENTITY,
    -- the role that wrote the row; only background workers of this role execute its statement
    role regrole NOT NULL DEFAULT quote_ident(CURRENT_USER)::regrole,
    owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    -- names the background workers that may take the order
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
    -- the broker's message, which ends with the statement
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
    -- its handle, and when its process began, which the background worker writes with its first task
    pid integer,
    cookie bigint,
    backend_start timestamptz,
    launcher_pid integer NOT NULL DEFAULT pg_backend_pid(),
    -- the background worker takes no order any more
    is_stopped boolean NOT NULL DEFAULT false,
    -- false once it has looked for an order and found none
    is_busy boolean NOT NULL DEFAULT false,
    -- how many orders it has taken, and the latest order, which it runs if is_busy
    turn integer NOT NULL DEFAULT 0,
    task_id text,
    attempt integer,
    -- the beginning of the order's statement, to be shown
    statement text,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, role)
) WITH (fillfactor = 50);

COMMENT ON TABLE celery_pgbg.bgworker IS
    'Reusable background workers and the latest order that each has taken. One that ends by itself deletes its row.';

ALTER TABLE celery_pgbg.work ENABLE ROW LEVEL SECURITY;
ALTER TABLE celery_pgbg.bgworker ENABLE ROW LEVEL SECURITY;

-- Roles that share rows may read and delete them; only the role itself writes statements to execute.
CREATE POLICY own_rows ON celery_pgbg.work
USING (role = quote_ident(CURRENT_USER)::regrole OR owner = (SELECT celery_pgbg.owner()))
WITH CHECK (role = quote_ident(CURRENT_USER)::regrole);
CREATE POLICY own_rows ON celery_pgbg.bgworker
USING (role = quote_ident(CURRENT_USER)::regrole OR owner = (SELECT celery_pgbg.owner()))
WITH CHECK (role = quote_ident(CURRENT_USER)::regrole);
