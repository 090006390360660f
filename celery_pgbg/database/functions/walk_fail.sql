-- Decide what follows an error, in a new transaction. After a temporary error, halves the batch and returns the seconds to
-- wait before another try. Else returns NULL, and the error is the outcome.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_fail(
    task_id text, attempt integer, walk jsonb, turn integer, failure jsonb, tries integer
) RETURNS double precision
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    w celery_pgbg.walk;
BEGIN
    SELECT row.* INTO w FROM celery_pgbg.walk AS row WHERE row.walk_id = walk ->> 'walk_id' AND row.owner = celery_pgbg.owner() FOR UPDATE;
    IF w.turn IS DISTINCT FROM turn AND turn IS NOT NULL THEN
        -- The walk has another turn, or no record: the next step finds out.
        RETURN 0;
    END IF;
    -- serialization_failure, deadlock_detected, lock_not_available
    IF failure ->> 'sqlstate' IN ('40001', '40P01', '55P03') AND tries < 20 THEN
        UPDATE celery_pgbg.walk AS row SET batch_rows = greatest(row.batch_rows / 2, 1)
        WHERE row.walk_id = walk ->> 'walk_id' AND row.owner = celery_pgbg.owner();
        RETURN (0.5 + random()) * least(0.02 * 2 ^ tries, 10);
    END IF;
    IF failure -> 'fields' ->> 'message_hint' IS NULL AND w.is_prepared THEN
        failure := jsonb_set(failure, '{fields,message_hint}', to_jsonb(format(
            'Earlier batches are committed. To continue after key (%s), remove the cause and run: celery pgbg resume %s',
            coalesce(array_to_string(coalesce(w.done_up_to, w.range_begin), ', '), 'none'), w.walk_id
        )));
    END IF;
    PERFORM celery_pgbg.walk_end(task_id, attempt, walk, failure);
    RETURN NULL;
END;
$$;
