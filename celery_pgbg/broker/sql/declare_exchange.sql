-- Make an exchange unless it is there; with passive only look.
SELECT celery_pgbg.declare_exchange(%(name)s::text, %(type)s::text, %(passive)s::boolean)
