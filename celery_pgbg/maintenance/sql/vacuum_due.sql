-- Tables with many rows that are dead or have changed since the last ANALYZE, those with the most first. Any session.
SELECT s.schemaname, s.relname
FROM pg_catalog.pg_stat_user_tables AS s
JOIN pg_catalog.pg_class AS c ON c.oid = s.relid
WHERE greatest(s.n_dead_tup, s.n_mod_since_analyze)::float8
    >= greatest(%(least_rows)s::float8, %(ratio)s::float8 * greatest(c.reltuples, s.n_live_tup)::float8)
    AND s.schemaname <> 'celery_pgbg'
ORDER BY greatest(s.n_dead_tup, s.n_mod_since_analyze) DESC
LIMIT %(limit)s::bigint
