-- Extend a claim on a chord; no row if another member has taken it over. On any session.
UPDATE celery_pgbg.chord
SET claimed_until = clock_timestamp() + (interval '1 millisecond' * %(lease_ms)s::bigint)
WHERE owner = (SELECT celery_pgbg.owner()) AND group_id = %(group_id)s::text AND claim = %(claim)s::text AND NOT finished
RETURNING group_id
