-- Whether an order is a plain query is asked for background workers of one task only: a reusable one runs short ones.

DROP FUNCTION IF EXISTS celery_pgbg.place_work(
    text[], text[], integer[], text[], text[], text[], text[], text[], boolean[], text[], text[], bigint[], boolean[],
    bigint[], jsonb[]
);
ALTER TABLE celery_pgbg.work DROP COLUMN is_plain_query;
