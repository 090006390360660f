-- The background workers, among some, that cannot continue: their messages have filled the launcher's queue.
SELECT pid FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'pg_background' AND datname = current_database()
    AND wait_event = ANY (ARRAY['MessageQueuePutMessage', 'MessageQueueSend'])
    AND pid = ANY(%(pids)s::integer[])
