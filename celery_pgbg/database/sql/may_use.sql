-- Whether this role may do more than send. Any session; needs no rights on our schema.
SELECT pg_catalog.has_table_privilege(c.oid, 'INSERT')
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'celery_pgbg' AND c.relname = 'result'
