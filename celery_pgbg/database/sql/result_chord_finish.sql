-- The callback is sent, or the chord has failed: drop the members' values and keep the mark, so
-- that a member that is delivered again does not begin anew. One transaction, on any session.
WITH finished AS (
    UPDATE celery_pgbg.chord
    SET finished = true, stored_at = clock_timestamp()
    WHERE owner = (SELECT celery_pgbg.owner()) AND group_id = %(group_id)s::text AND claim = %(claim)s::text
    RETURNING group_id
)
DELETE FROM celery_pgbg.chord_part
WHERE owner = (SELECT celery_pgbg.owner()) AND group_id = ANY (SELECT finished.group_id FROM finished)
