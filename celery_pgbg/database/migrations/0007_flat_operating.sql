-- What `pgbg ps`, `failed` and `purge` look for, found without reading a million records.

CREATE INDEX execution_pid ON celery_pgbg.execution (pid);

CREATE INDEX outcome_failed ON celery_pgbg.outcome (finished_at)
WHERE NOT succeeded;
