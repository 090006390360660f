-- The invalid indexes of a table, or of the table of an index, that no session builds now: OID, quoted name, name.
-- Any session; the name means what the session's search_path says.
SELECT c.oid::bigint, pg_catalog.format('%%I.%%I', n.nspname, c.relname), c.relname::text
FROM pg_catalog.pg_class AS named
JOIN pg_catalog.pg_index AS i
    ON i.indrelid = CASE
        WHEN named.relkind = 'i' OR named.relkind = 'I'
        THEN (SELECT own.indrelid FROM pg_catalog.pg_index AS own WHERE own.indexrelid = named.oid)
        ELSE named.oid
    END
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE named.oid = pg_catalog.to_regclass(%(relation)s::text)::oid AND NOT i.indisvalid AND c.relkind = 'i'
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_stat_progress_create_index AS p WHERE p.index_relid = i.indexrelid
    )
ORDER BY c.relname
