-- Record, once, where a walk begins and ends.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_prepare(
    walk jsonb, key jsonb, range_begin text[], first_key text[], range_end text[]
) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE celery_pgbg.walk AS w
    SET range_begin = walk_prepare.range_begin, first_key = walk_prepare.first_key,
        range_end = walk_prepare.range_end, is_prepared = true,
        expected_rows = (key ->> 'rows')::bigint / coalesce((walk -> 'split' ->> 'parts')::integer, 1),
        batch_rows = least(w.batch_rows, (walk ->> 'max_batch_rows')::integer)
    WHERE w.walk_id = walk ->> 'walk_id' AND w.owner = celery_pgbg.owner()
$$;
