-- Put the range of a batch into the task's statement. Returns no statement if the rest of the walk has no rows.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_statement(
    walk jsonb,
    after text[],
    range_end text[],
    batch_rows integer,
    edge text[],
    edge_rows bigint,
    OUT statement text,
    OUT up_to text[]
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key CONSTANT jsonb := walk -> 'described';
BEGIN
    up_to := CASE WHEN edge_rows = batch_rows THEN edge ELSE range_end END;
    IF edge IS NULL THEN
        RETURN;
    END IF;
    SELECT string_agg(
        piece.item ->> 'text' || CASE WHEN piece.item ->> 'is_last' IS NULL
            THEN celery_pgbg.walk_range(key, coalesce(piece.item ->> 'alias', key ->> 'table'), after, up_to)
            ELSE '' END,
        '' ORDER BY piece.place
    ) INTO statement
    FROM jsonb_array_elements(walk -> 'statement') WITH ORDINALITY AS piece (item, place);
END;
$$;
