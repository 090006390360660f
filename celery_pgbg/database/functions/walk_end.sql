-- Store the outcome of a batched task: its sums, or the error that ended it, as ``run_v1`` does.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_end(task_id text, attempt integer, walk jsonb, failure jsonb)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    w celery_pgbg.walk;
    sums record;
    nothing record;
BEGIN
    IF failure IS NULL THEN
        UPDATE celery_pgbg.walk AS row SET is_done = true, changed_at = clock_timestamp()
        WHERE row.walk_id = walk ->> 'walk_id' AND row.owner = celery_pgbg.owner();
    END IF;
    SELECT row.* INTO w FROM celery_pgbg.walk AS row WHERE row.walk_id = walk ->> 'walk_id' AND row.owner = celery_pgbg.owner();
    SELECT w.row_count AS rows, w.batches AS batches, w.seconds AS seconds INTO sums;
    SELECT NULL::bigint AS rows, NULL::bigint AS batches, NULL::double precision AS seconds INTO nothing;
    INSERT INTO celery_pgbg.outcome (
        task_id, attempt, succeeded, pid, started_at, finished_at, returns, row_count,
        column_names, column_types, row_texts, sqlstate, message, error_fields
    ) VALUES (
        task_id, attempt, failure IS NULL, pg_backend_pid(), coalesce(w.started_at, clock_timestamp()),
        clock_timestamp(), 'row', CASE WHEN failure IS NULL THEN 1 END,
        CASE WHEN failure IS NULL THEN row_to_json(nothing)::text END,
        CASE WHEN failure IS NULL THEN record_send(nothing) END,
        CASE WHEN failure IS NULL THEN ARRAY[sums::text] END,
        failure ->> 'sqlstate', failure ->> 'message', failure -> 'fields'
    );
    IF (walk ->> 'notify')::boolean THEN
        PERFORM pg_notify('celery_pgbg_outcome', attempt || ' ' || task_id);
    END IF;
END;
$$;
