-- The advisory lock key of one attempt: of its deliveries (kind delivery), of its run in a background worker
-- (attempt), or of the session that launched its statement to stand alone (standalone). Tasks of two roles may have
-- the same id.
CREATE OR REPLACE FUNCTION celery_pgbg.attempt_key(
    kind text, task_id text, attempt integer, owner regrole DEFAULT celery_pgbg.owner()
) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN celery_pgbg.lock_key(kind, attempt::text || ' ' || owner::oid::text || ' ' || task_id);
