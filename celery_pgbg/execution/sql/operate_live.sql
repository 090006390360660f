-- The attempts of a task whose background workers are alive, of all roles where this one sees them: with the name
-- of the owner where that is another. Any session.
SELECT live.attempt, live.atomic, role.rolname AS owner_name
FROM celery_pgbg.live_attempts() AS live
LEFT JOIN pg_catalog.pg_roles AS role ON role.oid = live.owner AND live.owner <> (SELECT celery_pgbg.owner())
WHERE live.task_id = %(task_id)s::text AND live.state = ANY (ARRAY['running', 'starting', 'unknown', 'waiting'])
