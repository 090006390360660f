-- The owner of our schema, if this role is a superuser and the owner is not: functions in the schema would run with a
-- superuser's rights. Runs before anything in the schema is used, with the session's own search_path.
SELECT owner.rolname
FROM pg_catalog.pg_namespace AS namespace
JOIN pg_catalog.pg_roles AS owner ON owner.oid OPERATOR(pg_catalog.=) namespace.nspowner
JOIN pg_catalog.pg_roles AS ours ON ours.rolname OPERATOR(pg_catalog.=) CURRENT_USER
WHERE namespace.nspname OPERATOR(pg_catalog.=) 'celery_pgbg' AND ours.rolsuper AND NOT owner.rolsuper
