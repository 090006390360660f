-- Begin the installation: the extension, our schema, and the record of migrations.
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT pg_advisory_xact_lock(7098221438016225);
CREATE EXTENSION IF NOT EXISTS pg_background;
CREATE SCHEMA IF NOT EXISTS celery_pgbg;
GRANT USAGE ON SCHEMA celery_pgbg TO PUBLIC;
CREATE TABLE IF NOT EXISTS celery_pgbg.migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
