-- The health of this database's broker: this role's rights, lost consumers and their messages, and the vacuuming of
-- the table of messages.
SELECT
    pg_catalog.has_table_privilege('celery_pgbg.message', 'SELECT')
        AND pg_catalog.has_table_privilege('celery_pgbg.message', 'UPDATE')
        AND pg_catalog.has_table_privilege('celery_pgbg.message', 'DELETE')
        AND pg_catalog.has_table_privilege('celery_pgbg.consumer', 'INSERT') AS may_consume,
    lost.consumers AS lost_consumers,
    lost.messages AS lost_messages,
    current_setting('autovacuum') = 'on'
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_class AS c
            WHERE c.oid = 'celery_pgbg.message'::regclass AND (
                'autovacuum_enabled=false' = ANY (c.reloptions) OR 'autovacuum_enabled=off' = ANY (c.reloptions)
            )
        ) AS is_vacuumed,
    pg_catalog.pg_stat_get_dead_tuples('celery_pgbg.message'::regclass) AS dead_rows,
    pg_catalog.pg_total_relation_size('celery_pgbg.message') AS bytes
FROM (
    SELECT
        count(*) AS consumers,
        coalesce(sum((SELECT count(*) FROM celery_pgbg.message AS m WHERE m.taken_by = c.id)), 0)::bigint AS messages
    FROM celery_pgbg.lost_consumers() AS c (id)
) AS lost
