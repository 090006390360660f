-- End all background workers of SQL tasks in this database, for tests. SIGTERM: what they did is rolled
-- back, and their tasks are lost. Any session.
SELECT pg_terminate_backend(live.pid)
FROM celery_pgbg.live_attempts() AS live
WHERE live.state = ANY (ARRAY['running', 'starting'])
