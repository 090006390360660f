-- Invalid indexes that a REINDEX CONCURRENTLY has left, and that no session builds now. Any session.
SELECT n.nspname, c.relname
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relname::text ~ '_cc(new|old)[0-9]*$'
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_stat_progress_create_index AS p
        WHERE p.index_relid = i.indexrelid OR p.relid = i.indrelid
    )
ORDER BY n.nspname, c.relname
