-- Wake up: senders no longer notify.
SELECT pg_advisory_unlock_shared(celery_pgbg.lock_key('sleeper', id::text))
FROM unnest(%(queue_ids)s::integer[]) AS queues (id)
