-- Write the query for the edge of a batch: the last key of the next rows of a range, up to a number of rows, and how many
-- there are; backwards, the first key of the last rows. No row for an empty range. Keys as PostgreSQL prints them.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_edge_query(
    key jsonb, after text[], up_to text[], row_limit integer, backwards boolean
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT format(
            'SELECT ARRAY[%s], %s FROM (SELECT %s FROM %s AS walked WHERE %s ORDER BY %s LIMIT %s) AS s ORDER BY %s LIMIT 1',
            string_agg(format('pg_catalog.format(''%%s'', s.k%s)', c.place), ', ' ORDER BY c.place),
            'pg_catalog.count(*) OVER ()',
            string_agg(format('walked.%s AS k%s', c.item ->> 'name', c.place), ', ' ORDER BY c.place),
            key ->> 'table',
            celery_pgbg.walk_range(key, 'walked', after, up_to),
            string_agg(format('walked.%s%s USING %s', c.item ->> 'name', c.item ->> 'collate', way.there), ', ' ORDER BY c.place),
            row_limit,
            string_agg(format('s.k%s%s USING %s', c.place, c.item ->> 'collate', way.back), ', ' ORDER BY c.place)
        )
        FROM jsonb_array_elements(key -> 'columns') WITH ORDINALITY AS c (item, place)
        CROSS JOIN (
            SELECT
                CASE WHEN backwards THEN key ->> 'greater' ELSE key ->> 'less' END AS there,
                CASE WHEN backwards THEN key ->> 'less' ELSE key ->> 'greater' END AS back
        ) AS way
    );
END;
$$;
