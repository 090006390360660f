-- The number of launches of an attempt whose background worker was lost; after this no session has to report its end. A
-- crash of the server may have lost the record: this makes a new one, on disk when this returns. The new record is dated
-- back a minute, because an attempt launched a moment ago counts as running.
INSERT INTO celery_pgbg.execution AS execution
    (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename, launched_at, launcher_pid)
VALUES (
    %(task_id)s::text, %(attempt)s::integer, %(task_name)s::text, true, 0, 0, %(application_name)s::text,
    %(nodename)s::text, clock_timestamp() - interval '1 minute', 0
)
ON CONFLICT (task_id, attempt, owner) DO UPDATE SET launcher_pid = 0
RETURNING launches
