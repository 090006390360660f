-- Begin the installation: one transaction, in which names mean the server's own objects. The owner of a database may have
-- set another search_path for all its sessions, even for a superuser's.
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
SET LOCAL standard_conforming_strings = on;
SELECT pg_catalog.pg_advisory_xact_lock(7098221438016225);
-- All tasks wait behind a migration that waits for a table.
SET LOCAL lock_timeout = '10s';
CREATE EXTENSION IF NOT EXISTS pg_background SCHEMA public;
