-- A saved group; no row where it is not there. On any session.
SELECT content_type, content_encoding, value
FROM celery_pgbg.result_group
WHERE owner = (SELECT celery_pgbg.owner()) AND group_id = %(group_id)s::text
