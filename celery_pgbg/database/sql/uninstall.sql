-- Remove everything that install made except the extension. Destroys all records and outcomes.
DROP SCHEMA IF EXISTS celery_pgbg CASCADE;
