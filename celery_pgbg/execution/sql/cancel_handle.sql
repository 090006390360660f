-- Stop a background worker of this session that runs its task; its transaction rolls back. Never with a grace, and
-- never before its SQL runs: before pg_background 2.0.2 that can restart the whole cluster. No row where it does not.
SELECT {cancel_function}(live.pid, %(cookie)s::bigint{no_grace})
FROM celery_pgbg.live_attempts() AS live
WHERE live.task_id = %(task_id)s::text AND live.attempt = %(attempt)s::integer AND live.owner = (SELECT celery_pgbg.owner())
    AND live.pid = %(pid)s::integer AND live.state = 'running'
