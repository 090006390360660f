-- Count one more member of a chord's header, once for each task id. On any session.
INSERT INTO celery_pgbg.chord AS chord (group_id, added)
VALUES (%(group_id)s::text, ARRAY[%(task_id)s::text])
ON CONFLICT (group_id, owner) DO UPDATE SET added = chord.added || excluded.added
WHERE NOT (chord.added @> excluded.added)
