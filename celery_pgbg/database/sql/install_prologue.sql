-- Begin the installation: a transaction of its own, and the extension.
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT pg_advisory_xact_lock(7098221438016225);
CREATE EXTENSION IF NOT EXISTS pg_background;
