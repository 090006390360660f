-- Delete a saved group; its members' results stay. On any session.
DELETE FROM celery_pgbg.result_group
WHERE owner = (SELECT celery_pgbg.owner()) AND group_id = %(group_id)s::text
