-- Note that a relay forwards messages: send_task gives it messages without a queue here.
UPDATE celery_pgbg.queue SET declared_at = pg_catalog.clock_timestamp()
WHERE name_key = celery_pgbg.name_key(%(name)s::text) AND declared_at = '-infinity'
