-- Background workers that run one task after another, each in a transaction of its own.

-- Unlogged: a crash of the server ends the background workers as well.
CREATE UNLOGGED TABLE celery_pgbg.bgworker (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- counts its tasks; it runs the one of this turn once
    turn integer NOT NULL DEFAULT 1,
    task_id text NOT NULL,
    attempt integer NOT NULL,
    application_name text NOT NULL,
    -- the call of run_v1
    work text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

COMMENT ON TABLE celery_pgbg.bgworker IS
    'The latest task of each reusable background worker, which deletes its row when it ends by itself.';
