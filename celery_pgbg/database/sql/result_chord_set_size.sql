-- Say how many members a chord's header has, before the last of them is sent. On any session.
INSERT INTO celery_pgbg.chord AS chord (group_id, size)
VALUES (%(group_id)s::text, %(size)s::integer)
ON CONFLICT (group_id, owner) DO UPDATE SET
    size = excluded.size, stored_at = excluded.stored_at, claim = NULL, claimed_until = NULL, finished = false,
    added = CASE WHEN chord.finished THEN '{}' ELSE chord.added END,
    arrived = CASE WHEN chord.finished THEN 0 ELSE chord.arrived END
