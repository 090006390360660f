-- Write one key as literals of its columns' types, a row where there are several.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_literal(key jsonb, key_values text[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN count(*) > 1 THEN 'ROW(' || string_agg(literal, ', ' ORDER BY place) || ')' ELSE min(literal) END
    FROM (
        SELECT quote_literal(key_values[c.place]) || '::' || (c.item ->> 'type') AS literal, c.place
        FROM jsonb_array_elements(key -> 'columns') WITH ORDINALITY AS c (item, place)
    ) AS column_literal
$$;
