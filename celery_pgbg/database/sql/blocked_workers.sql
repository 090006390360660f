-- Of some background workers, those that cannot go on: what they tell their launcher has filled its queue.
SELECT pid FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'pg_background' AND wait_event IN ('MessageQueuePutMessage', 'MessageQueueSend')
    AND pid = ANY(%(pids)s::integer[])
