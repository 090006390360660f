-- Record a batch in its own transaction, and choose the size of the next. Returns the seconds to pause before the next
-- batch: as long as the batch took, 5 at most, if other sessions wait for its locks; else 0.
--
-- After a batch that took twice the wanted time, the next one has half the size, and so on; at least a quarter, at most
-- twice the size.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_record(
    task_id text,
    attempt integer,
    walk jsonb,
    up_to text[],
    walked_rows bigint,
    row_count bigint,
    began_at timestamptz,
    OUT pause_seconds double precision
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    took CONSTANT double precision := greatest(extract(epoch FROM clock_timestamp() - began_at), 0.0001);
    factor double precision;
    has_waiters boolean := false;
BEGIN
    IF (walk ->> 'yields')::boolean THEN
        SELECT count(*) > 0 INTO has_waiters
        FROM pg_locks AS l WHERE NOT l.granted AND pg_backend_pid() = ANY (pg_blocking_pids(l.pid));
    END IF;
    factor := least(greatest((walk ->> 'batch_seconds')::double precision / took, 0.25), 2);
    pause_seconds := 0;
    IF has_waiters THEN
        factor := least(factor, 0.5);
        pause_seconds := least(took, 5);
    END IF;
    UPDATE celery_pgbg.walk AS w
    SET done_up_to = up_to, row_count = w.row_count + walk_record.row_count,
        walked_rows = w.walked_rows + walk_record.walked_rows, batches = w.batches + 1, seconds = w.seconds + took,
        batch_rows = least(greatest((w.batch_rows * factor)::integer, 1), (walk ->> 'max_batch_rows')::integer),
        changed_at = clock_timestamp()
    WHERE w.walk_id = walk ->> 'walk_id' AND w.owner = celery_pgbg.owner();
    PERFORM celery_pgbg.walk_show(task_id, attempt, walk, NULL);
END;
$$;
