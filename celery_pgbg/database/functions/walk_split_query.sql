-- Write the query for the last keys of a number of ranges of about equal size; a large table is sampled by pages.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_split_query(key jsonb, parts integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT format(
            'SELECT pg_catalog.jsonb_agg(b.k ORDER BY b.tile) FROM (SELECT DISTINCT ON (s.tile) s.tile, ARRAY[%s] AS k'
            ' FROM (SELECT %s, pg_catalog.ntile(%s) OVER w AS tile, pg_catalog.row_number() OVER w AS place FROM'
            ' %s AS walked TABLESAMPLE SYSTEM (%s) WHERE %s WINDOW w AS (ORDER BY %s)) AS s'
            ' ORDER BY s.tile, s.place DESC) AS b',
            string_agg(format('pg_catalog.format(''%%s'', s.k%s)', c.place), ', ' ORDER BY c.place),
            string_agg(format('walked.%s AS k%s', c.item ->> 'name', c.place), ', ' ORDER BY c.place),
            parts,
            key ->> 'table',
            -- about 50,000 rows
            round(least(100, 100 * 50000.0 / greatest((key ->> 'rows')::numeric, 1)), 6),
            celery_pgbg.walk_range(key, 'walked', NULL, NULL),
            string_agg(
                format('walked.%s%s USING %s', c.item ->> 'name', c.item ->> 'collate', key ->> 'less'), ', '
                ORDER BY c.place
            )
        )
        FROM jsonb_array_elements(key -> 'columns') WITH ORDINALITY AS c (item, place)
    );
END;
$$;
