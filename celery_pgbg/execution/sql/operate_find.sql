-- Up to three task ids that begin with the given text, one that is equal to it alone. Any session.
WITH equal AS MATERIALIZED (
    SELECT %(beginning)s::text AS task_id
    WHERE EXISTS (SELECT FROM celery_pgbg.execution WHERE task_id = %(beginning)s::text)
        OR EXISTS (SELECT FROM celery_pgbg.outcome WHERE task_id = %(beginning)s::text)
)
SELECT task_id FROM equal
UNION ALL
(
    SELECT DISTINCT execution.task_id FROM celery_pgbg.execution AS execution
    WHERE starts_with(execution.task_id, %(beginning)s::text) AND NOT EXISTS (SELECT FROM equal)
    LIMIT 3
)
