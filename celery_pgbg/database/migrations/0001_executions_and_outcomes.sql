-- What was launched, and what it left behind.

CREATE TABLE celery_pgbg.execution (
    task_id text NOT NULL,
    attempt integer NOT NULL,
    task_name text NOT NULL,
    atomic boolean NOT NULL,
    pid integer NOT NULL,
    cookie bigint NOT NULL,
    application_name text NOT NULL,
    nodename text NOT NULL,
    launcher_pid integer NOT NULL DEFAULT pg_backend_pid(),
    launched_by name NOT NULL DEFAULT current_user,
    launched_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    launches integer NOT NULL DEFAULT 1,
    progress_percent smallint,
    progress_message text,
    PRIMARY KEY (task_id, attempt)
);

COMMENT ON TABLE celery_pgbg.execution IS
    'The latest launch of each attempt of a task: its background worker''s handle, who launched it, when.';

CREATE INDEX execution_launched_at ON celery_pgbg.execution (launched_at);

CREATE TABLE celery_pgbg.outcome (
    task_id text NOT NULL,
    attempt integer NOT NULL,
    succeeded boolean NOT NULL,
    pid integer NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    -- the shape of the value: rows, row, value, count, command
    returns text,
    row_count bigint,
    command_tag text,
    column_names text[],
    -- the first row in binary form, which tells the columns' types
    first_row bytea,
    -- each row as PostgreSQL prints a composite value
    row_texts text[],
    sqlstate text,
    message text,
    -- further fields of the error, named as in psycopg's Diagnostic
    error_fields jsonb,
    PRIMARY KEY (task_id, attempt)
);

COMMENT ON TABLE celery_pgbg.outcome IS
    'What an attempt left behind, written in the transaction of its statement.';

CREATE INDEX outcome_finished_at ON celery_pgbg.outcome (finished_at);
