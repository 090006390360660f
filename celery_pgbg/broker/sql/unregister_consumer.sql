-- Delete a consumer's record, at the orderly end of its session, unless it has messages that could not be given back.
DELETE FROM celery_pgbg.consumer
WHERE id = %(consumer_id)s::bigint
    AND NOT EXISTS (SELECT FROM celery_pgbg.message WHERE message.taken_by = %(consumer_id)s::bigint)
