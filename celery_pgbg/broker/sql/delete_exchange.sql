-- Delete an exchange and its bindings.
DELETE FROM celery_pgbg.exchange
WHERE name_key = celery_pgbg.name_key(%(name)s::text)
    AND (NOT %(if_unused)s::boolean OR NOT EXISTS (SELECT FROM celery_pgbg.binding WHERE exchange_id = exchange.id))
