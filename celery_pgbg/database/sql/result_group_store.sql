-- Save a group, in place of an older one of the same id. On any session.
INSERT INTO celery_pgbg.result_group AS saved (group_id, content_type, content_encoding, value)
VALUES (%(group_id)s::text, %(content_type)s::text, %(content_encoding)s::text, %(value)s::bytea)
ON CONFLICT (group_id, owner) DO UPDATE SET
    content_type = excluded.content_type, content_encoding = excluded.content_encoding,
    value = excluded.value, stored_at = excluded.stored_at
