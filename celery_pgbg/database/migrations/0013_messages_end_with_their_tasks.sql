-- Functions that take a message of the broker now, which ends with the transaction of its task.

DROP FUNCTION IF EXISTS celery_pgbg.run_v1(
    text, integer, regrole, xid8, bigint, boolean, text, text, boolean, text, text, bigint, boolean
);
DROP FUNCTION IF EXISTS celery_pgbg.run_call(
    boolean, text, integer, text, text, boolean, text, text, bigint, boolean
);
DROP FUNCTION IF EXISTS celery_pgbg.launch(
    text, text, integer, text, integer, text, text, text, text, text, boolean, text, text, jsonb, bigint, boolean, jsonb
);
DROP FUNCTION IF EXISTS celery_pgbg.launch_reusable(
    text, text, integer, text, integer, text, text, text, text, text, boolean, text, text, bigint, boolean
);
DROP FUNCTION IF EXISTS celery_pgbg.hand_over(
    bigint, integer, integer, bigint, text, integer, text, text, text, text, text, boolean, text, text, bigint, boolean
);
