-- Delete the record that one of our own lost sessions has left, and with which it launched nothing.
DELETE FROM celery_pgbg.execution
WHERE task_id = %(task_id)s::text AND attempt = %(attempt)s::integer AND owner = (SELECT celery_pgbg.owner())
    AND NOT atomic AND pid = 0 AND launcher_pid = ANY(%(launcher_pids)s::integer[])
