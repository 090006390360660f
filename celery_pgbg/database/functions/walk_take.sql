-- Take a walk for one attempt of a task: begin it, or continue the walk of an earlier attempt. From the commit on
-- no other background worker does a batch of it. Returns the turn to do batches with.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_take(
    task_id text, attempt integer, walk jsonb, OUT turn integer, OUT is_prepared boolean
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    columns CONSTANT text[] := ARRAY(SELECT jsonb_array_elements_text(walk -> 'key'));
    taken celery_pgbg.walk;
BEGIN
    INSERT INTO celery_pgbg.walk AS w (walk_id, task_name, task_id, attempt, table_name, key_columns, message)
    VALUES (
        walk ->> 'walk_id', walk ->> 'task_name', walk_take.task_id, walk_take.attempt, walk ->> 'table', columns,
        walk -> 'message'
    )
    ON CONFLICT (walk_id, owner) DO UPDATE SET
        turn = w.turn + 1, task_id = excluded.task_id, attempt = excluded.attempt, changed_at = clock_timestamp()
    RETURNING w.* INTO taken;
    IF taken.task_name <> walk ->> 'task_name' THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('walk %s belongs to task %s', taken.walk_id, taken.task_name);
    END IF;
    IF taken.table_name <> walk ->> 'table' OR taken.key_columns <> columns THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format(
                'the walk began in table %s by key (%s), and cannot continue in table %s by key (%s)',
                taken.table_name, array_to_string(taken.key_columns, ', '), walk ->> 'table',
                array_to_string(columns, ', ')
            ),
            HINT = 'Send a new task.';
    END IF;
    walk_take.turn := taken.turn;
    walk_take.is_prepared := taken.is_prepared;
END;
$$;
