-- B-tree indexes that are several times larger than their rows need, the most wasteful first. An entry needs
-- its columns' average width, padded to eight bytes, its header and its pointer; a page is filled to nine tenths.
-- Any session.
SELECT i.nspname, i.relname
FROM (
    SELECT
        n.nspname, c.relname, c.relpages::bigint AS pages,
        ceil(
            c.reltuples::float8
            * (12 + (8 * ceil(((SELECT sum(s.avg_width) FROM pg_catalog.pg_stats AS s
                JOIN pg_catalog.pg_attribute AS a
                    ON a.attrelid = x.indrelid AND a.attname = s.attname AND a.attnum = ANY (x.indkey::smallint[])
                WHERE s.schemaname = tn.nspname AND s.tablename = t.relname AND NOT s.inherited
            )::float8) / 8)))
            / (0.9 * (current_setting('block_size')::float8 - 40))
        ) AS needed
    FROM pg_catalog.pg_index AS x
    JOIN pg_catalog.pg_class AS c ON c.oid = x.indexrelid AND c.relkind = 'i'
    JOIN pg_catalog.pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class AS t ON t.oid = x.indrelid
    JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace
    WHERE x.indisvalid AND x.indexprs IS NULL AND c.reltuples > 0
        AND left(n.nspname::text, 3) <> 'pg_' AND n.nspname <> 'information_schema'
) AS i
WHERE (i.pages * current_setting('block_size')::bigint) >= %(least_bytes)s::bigint
    AND i.pages::float8 >= (%(factor)s::float8 * greatest(i.needed, 1))
ORDER BY i.pages::float8 - i.needed DESC
LIMIT %(limit)s::bigint
