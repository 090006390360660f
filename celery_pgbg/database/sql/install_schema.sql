-- Make our schema, and the record of migrations.
CREATE SCHEMA IF NOT EXISTS celery_pgbg;
GRANT USAGE ON SCHEMA celery_pgbg TO PUBLIC;
CREATE TABLE IF NOT EXISTS celery_pgbg.migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
