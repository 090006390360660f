-- Delete a saved group; its members' results stay. On any session.
DELETE FROM celery_pgbg.result_group WHERE group_id = %(group_id)s::text
