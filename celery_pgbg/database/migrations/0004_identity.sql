-- Which process runs an attempt, as only the server can show, and which outcomes we settled ourselves.

ALTER TABLE celery_pgbg.execution
    -- a moment at which the process of that PID was the background worker of the statement, which stands alone: with
    -- the PID and the process's own start, that is its identity
    ADD COLUMN seen_at timestamptz,
    -- when a session that did not launch it ended its background worker on our demand
    ADD COLUMN terminated_at timestamptz;

CREATE INDEX execution_standalone ON celery_pgbg.execution (launcher_pid) WHERE NOT atomic;

ALTER TABLE celery_pgbg.outcome
    -- NULL for what the statement left; else why one of our sessions settled it: revoked, broken off, time limit, ...
    ADD COLUMN settled_as text;

-- Functions with other arguments replace these.
DROP FUNCTION IF EXISTS celery_pgbg.is_running(integer, text, timestamptz);
DROP FUNCTION IF EXISTS celery_pgbg.terminate_attempt(text, integer);
DROP FUNCTION IF EXISTS celery_pgbg.run_call(
    bigint, boolean, text, integer, text, text, text, text, bigint, boolean
);
DROP FUNCTION IF EXISTS celery_pgbg.run_v1(
    text, integer, xid8, bigint, bigint, boolean, text, text, text, text, bigint, boolean
);
DROP PROCEDURE IF EXISTS celery_pgbg.serve_v1(bigint, bigint);
DROP FUNCTION IF EXISTS celery_pgbg.walk_call(bigint, text, integer, jsonb, text);
DROP PROCEDURE IF EXISTS celery_pgbg.walk_v1(text, integer, xid8, bigint, bigint, jsonb, text, boolean);
