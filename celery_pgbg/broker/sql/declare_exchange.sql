-- Make an exchange, unless it exists; with passive only look.
SELECT celery_pgbg.declare_exchange(%(name)s::text, %(type)s::text, %(passive)s::boolean)
