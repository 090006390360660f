-- Outcomes with everything that a result backend in the same database needs.

ALTER TABLE celery_pgbg.outcome
    -- if the outcome is the task's result: what Celery would store of a success besides the value, such as the group's
    -- id, and for how many seconds (kept_seconds; without it for ever). NULL: Celery stores a result
    ADD COLUMN task_meta jsonb;

-- Functions with other arguments replace these.
DROP FUNCTION IF EXISTS celery_pgbg.run_v1(
    text, integer, regrole, xid8, bigint, boolean, text, text, boolean, text, text, bigint, boolean, bigint
);
DROP FUNCTION IF EXISTS celery_pgbg.run_call(
    boolean, text, integer, text, text, boolean, text, text, bigint, boolean, bigint
);
DROP FUNCTION IF EXISTS celery_pgbg.launch(
    text, text, integer, text, integer, text, text, text, text, text, boolean, text, text, jsonb, bigint, boolean, jsonb,
    bigint
);
