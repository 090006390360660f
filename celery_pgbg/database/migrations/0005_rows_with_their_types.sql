-- Outcomes know the types of their columns, which may be gone when they are read.

ALTER TABLE celery_pgbg.outcome DROP COLUMN first_row;
ALTER TABLE celery_pgbg.outcome DROP COLUMN column_names;
-- a row of NULLs as JSON: the columns' names in their order, which may be equal
ALTER TABLE celery_pgbg.outcome ADD COLUMN column_names text;
-- a row of NULLs in PostgreSQL's binary form: the columns' types, domains as the types below them
ALTER TABLE celery_pgbg.outcome ADD COLUMN column_types bytea;
DROP FUNCTION IF EXISTS celery_pgbg.column_types(bytea);
DROP FUNCTION IF EXISTS celery_pgbg.base_type(oid);
