-- Write the condition for the rows after one key and up to another; NULL for no such limit. Valid with any search path.
-- Rows with NULL in their key are in no range.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_range(key jsonb, prefix text, after text[], up_to text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text;
    not_null text;
    width integer;
    limits text := '';
BEGIN
    SELECT
        string_agg(prefix || '.' || (c.item ->> 'name') || (c.item ->> 'collate'), ', ' ORDER BY c.place),
        string_agg(' AND ' || prefix || '.' || (c.item ->> 'name') || ' IS NOT NULL', '' ORDER BY c.place)
            FILTER (WHERE (c.item ->> 'may_be_null')::boolean),
        count(*)
    INTO names, not_null, width
    FROM jsonb_array_elements(key -> 'columns') WITH ORDINALITY AS c (item, place);
    IF width > 1 THEN
        names := 'ROW(' || names || ')';
    END IF;
    IF after IS NOT NULL THEN
        limits := limits || ' AND ' || names || ' ' || (key ->> 'greater') || ' ' || celery_pgbg.walk_literal(key, after);
    END IF;
    IF up_to IS NOT NULL THEN
        limits := limits || ' AND ' || names || ' ' || (key ->> 'at_most') || ' ' || celery_pgbg.walk_literal(key, up_to);
    END IF;
    RETURN '(true' || coalesce(not_null, '') || limits || ')';
END;
$$;
