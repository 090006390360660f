-- The next step of a background worker on its walk; the walk's row is locked until the end of the transaction.
--
-- ``is_left``: no more steps, because the attempt was cancelled, or another task has taken the walk. ``is_over``: all is
-- done. ``waits_for``: why the walk must not continue now. Else the query for the edge of the next batch, and the key
-- after which that batch begins.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_next(
    task_id text,
    attempt integer,
    walk jsonb,
    turn integer,
    OUT is_left boolean,
    OUT is_over boolean,
    OUT waits_for text,
    OUT after text[],
    OUT range_end text[],
    OUT batch_rows integer,
    OUT edge_query text
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    w celery_pgbg.walk;
    lag double precision;
BEGIN
    -- Keys are printed and read with these styles; a statement may have changed them for its session.
    PERFORM
        set_config('datestyle', 'ISO', true), set_config('intervalstyle', 'postgres', true),
        set_config('bytea_output', 'hex', true), set_config('extra_float_digits', '1', true);
    SELECT row.* INTO w FROM celery_pgbg.walk AS row WHERE row.walk_id = walk ->> 'walk_id' AND row.owner = celery_pgbg.owner() FOR UPDATE;
    IF w.walk_id IS NULL THEN
        RAISE object_not_in_prerequisite_state USING MESSAGE = 'the record of the walk was deleted';
    END IF;
    is_left := EXISTS (
        SELECT FROM celery_pgbg.outcome AS o WHERE o.task_id = walk_next.task_id AND o.attempt = walk_next.attempt
    );
    IF w.turn <> turn AND NOT is_left THEN
        is_left := true;
        IF (w.task_id, w.attempt) <> (task_id, attempt) THEN
            PERFORM celery_pgbg.walk_end(task_id, attempt, walk, jsonb_build_object(
                'sqlstate', '55000', 'message', format('task %s continues this walk', w.task_id)
            ));
        END IF;
    END IF;
    is_over := w.is_done OR w.range_end IS NULL OR w.done_up_to IS NOT DISTINCT FROM w.range_end;
    IF is_left OR is_over THEN
        RETURN;
    END IF;
    IF w.is_paused THEN
        waits_for := 'paused';
    ELSIF walk ->> 'max_replication_lag' IS NOT NULL THEN
        lag := celery_pgbg.replication_lag();
        IF lag > (walk ->> 'max_replication_lag')::double precision THEN
            waits_for := format('waits for a standby, %s s behind', round(lag));
        END IF;
    END IF;
    after := coalesce(w.done_up_to, w.range_begin);
    range_end := w.range_end;
    batch_rows := w.batch_rows;
    edge_query := celery_pgbg.walk_edge_query(walk -> 'described', after, range_end, batch_rows, false);
END;
$$;
