-- Show in the execution the progress of a walk, and what the walk waits for. Because the walk progresses, the count of
-- launches is reset.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_show(task_id text, attempt integer, walk jsonb, waits_for text)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    w celery_pgbg.walk;
    text_shown text;
    share double precision;
BEGIN
    SELECT row.* INTO w FROM celery_pgbg.walk AS row WHERE row.walk_id = walk ->> 'walk_id' AND row.owner = celery_pgbg.owner();
    share := CASE WHEN w.done_up_to = w.range_end OR w.range_end IS NULL THEN 1 ELSE coalesce(
        celery_pgbg.walk_share(walk #>> '{described,columns,0,base}', w.first_key[1], w.range_end[1], w.done_up_to[1]),
        least(w.walked_rows / nullif(w.expected_rows, 0)::double precision, 0.99)
    ) END;
    text_shown := format('%s rows in %s batches', w.row_count, w.batches) || coalesce(', ' || waits_for, '');
    UPDATE celery_pgbg.execution AS e
    SET progress_percent = floor(100 * share)::smallint, progress_message = text_shown,
        launches = CASE WHEN waits_for IS NULL THEN 1 ELSE e.launches END
    WHERE e.task_id = walk_show.task_id AND e.attempt = walk_show.attempt
        AND (e.progress_message IS DISTINCT FROM text_shown OR waits_for IS NULL);
END;
$$;
