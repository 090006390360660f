-- Record the bounds of a split, unless they are recorded, and return the range of one part, counted from 1: after
-- ``range_begin``, up to ``range_end``; NULL at the two ends. ``is_empty`` if there are fewer ranges than parts.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_part(
    split jsonb, bounds jsonb, OUT range_begin text[], OUT range_end text[], OUT is_empty boolean
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part CONSTANT integer := (split ->> 'part')::integer;
    ranges integer;
BEGIN
    bounds := coalesce(bounds, '[]');
    INSERT INTO celery_pgbg.walk_split (split_id, bounds) VALUES (split ->> 'id', bounds)
    ON CONFLICT (split_id, owner) DO NOTHING;
    ranges := greatest(jsonb_array_length(bounds), 1);
    is_empty := part > ranges;
    IF part > 1 AND NOT is_empty THEN
        range_begin := ARRAY(SELECT jsonb_array_elements_text(bounds -> (part - 2)));
    END IF;
    IF part < ranges THEN
        range_end := ARRAY(SELECT jsonb_array_elements_text(bounds -> (part - 1)));
    END IF;
END;
$$;
