-- Reusable background workers run short tasks, and need not know whether an order is a plain query.

DROP FUNCTION IF EXISTS celery_pgbg.place_work(
    text[], text[], integer[], text[], text[], text[], text[], text[], boolean[], text[], text[], bigint[], boolean[],
    bigint[], jsonb[]
);
ALTER TABLE celery_pgbg.work DROP COLUMN is_plain_query;
