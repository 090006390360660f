-- The position of a key between two others, 0 - 1, for types with a distance; else NULL. Type names are as ``regtype``
-- prints them.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_share(type_name text, first_key text, last_key text, key_value text)
RETURNS double precision
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    places numeric[];
BEGIN
    IF type_name IN ('smallint', 'integer', 'bigint', 'numeric', 'real', 'double precision') THEN
        places := ARRAY[first_key::numeric, last_key::numeric, key_value::numeric];
    ELSIF type_name IN ('date', 'timestamp without time zone', 'timestamp with time zone') THEN
        places := ARRAY(
            SELECT extract(epoch FROM v::timestamptz)::numeric
            FROM unnest(ARRAY[first_key, last_key, key_value]) WITH ORDINALITY AS k (v, place) ORDER BY place
        );
    ELSIF type_name = 'uuid' THEN
        places := ARRAY(
            SELECT ('x' || left(v, 8))::bit(32)::bigint::numeric
            FROM unnest(ARRAY[first_key, last_key, key_value]) WITH ORDINALITY AS k (v, place) ORDER BY place
        );
    END IF;
    IF key_value IS NULL OR places[2] > places[1] IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    RETURN least(greatest((places[3] - places[1]) / (places[2] - places[1]), 0), 1);
EXCEPTION WHEN data_exception THEN
    -- infinite, or no number
    RETURN NULL;
END;
$$;
