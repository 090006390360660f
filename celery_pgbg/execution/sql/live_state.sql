-- Whether an attempt runs: its state, see live_attempts; no row where it does not. Any session.
SELECT state FROM celery_pgbg.live_attempts() AS live
WHERE live.task_id = %(task_id)s::text AND live.attempt = %(attempt)s::integer AND live.owner = (SELECT celery_pgbg.owner())
