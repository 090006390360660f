-- Fall asleep: senders to these queues notify from now on. Returns the queues with that state.
SELECT id FROM unnest(%(queue_ids)s::integer[]) AS queues (id)
WHERE pg_try_advisory_lock_shared(celery_pgbg.lock_key('sleeper', id::text))
