-- What the result backend keeps: states and values of tasks, saved groups, and chords.

CREATE TABLE celery_pgbg.result (
    task_id text PRIMARY KEY,
    status text NOT NULL,
    -- how value and details are encoded, as kombu names it
    content_type text NOT NULL,
    content_encoding text NOT NULL,
    -- NULL where the value is that of an outcome
    value bytea,
    outcome_attempt integer,
    -- children, arguments and stamps, one encoded dict; NULL where there are none
    details bytea,
    traceback text,
    date_done timestamptz,
    group_id text,
    parent_id text,
    name text,
    worker text,
    retries integer,
    queue text,
    -- forgotten on demand; the row stays so that its outcome does not become a result again
    forgotten boolean NOT NULL DEFAULT false,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE celery_pgbg.result IS
    'The state and value of each task, as Celery''s result backend stores them.';

CREATE INDEX result_stored_at ON celery_pgbg.result (stored_at);

CREATE TABLE celery_pgbg.result_group (
    group_id text PRIMARY KEY,
    content_type text NOT NULL,
    content_encoding text NOT NULL,
    value bytea NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE celery_pgbg.result_group IS
    'Saved groups: the ids of their members.';

CREATE INDEX result_group_stored_at ON celery_pgbg.result_group (stored_at);

CREATE TABLE celery_pgbg.chord (
    group_id text PRIMARY KEY,
    -- members of the header; NULL until the last one is sent
    size integer,
    -- ids of members that running members have added
    added text[] NOT NULL DEFAULT '{}',
    arrived integer NOT NULL DEFAULT 0,
    -- the process that sends the callback, and until when no other process may
    claim text,
    claimed_until timestamptz,
    finished boolean NOT NULL DEFAULT false,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE celery_pgbg.chord IS
    'How many members of a chord''s header have ended, and who sends its callback.';

CREATE INDEX chord_stored_at ON celery_pgbg.chord (stored_at);

CREATE TABLE celery_pgbg.chord_part (
    group_id text NOT NULL,
    task_id text NOT NULL,
    -- place in the header; the largest integer where it has none
    group_index integer NOT NULL,
    arrival bigint GENERATED ALWAYS AS IDENTITY,
    status text NOT NULL,
    content_type text NOT NULL,
    content_encoding text NOT NULL,
    -- NULL where the value is that of an outcome
    value bytea,
    outcome_attempt integer,
    PRIMARY KEY (group_id, task_id, group_index)
);

COMMENT ON TABLE celery_pgbg.chord_part IS
    'The values of a chord''s members, kept until its callback is sent.';

CREATE INDEX chord_part_outcome ON celery_pgbg.chord_part (task_id, outcome_attempt)
WHERE outcome_attempt IS NOT NULL;
