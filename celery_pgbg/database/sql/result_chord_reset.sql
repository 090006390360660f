-- Forget a finished chord of the same group id: the same frozen chord is sent again. On any session.
DELETE FROM celery_pgbg.chord
WHERE owner = (SELECT celery_pgbg.owner()) AND group_id = %(group_id)s::text AND finished
