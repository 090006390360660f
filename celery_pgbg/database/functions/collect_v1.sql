-- Execute one statement and put what it returns into an outcome.
--
-- A cursor tells, without executing anything, whether the statement returns rows: opening one for
-- a statement that does not is invalid_cursor_definition. "row" and "value" then go without the
-- cursor, which would rule out a parallel plan.
CREATE OR REPLACE FUNCTION celery_pgbg.collect_v1(
    INOUT outcome celery_pgbg.outcome, statement text, returns text, max_result_bytes bigint
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    results refcursor;
    item record;
    row_texts text[] := '{}';
    row_text text;
    result_bytes bigint := 0;
BEGIN
    outcome.returns := coalesce(returns, 'count');
    IF returns IS DISTINCT FROM 'count' THEN
        BEGIN
            OPEN results FOR EXECUTE statement;
        EXCEPTION WHEN invalid_cursor_definition THEN
            results := NULL;
        END;
        IF results IS NULL AND returns IS NOT NULL THEN
            RAISE invalid_parameter_value USING
                MESSAGE = 'the task has returns="' || returns || '", but its statement returns no rows',
                HINT = 'Add RETURNING to the statement, or use returns="count".';
        END IF;
    END IF;

    IF results IS NULL THEN
        EXECUTE statement;
        GET DIAGNOSTICS outcome.row_count = ROW_COUNT;
        RETURN;
    END IF;

    outcome.returns := coalesce(returns, 'rows');
    IF returns IN ('row', 'value') THEN
        CLOSE results;
        EXECUTE statement INTO item;
        GET DIAGNOSTICS outcome.row_count = ROW_COUNT;
        IF outcome.row_count > 0 THEN
            row_texts := ARRAY[item::text];
            result_bytes := octet_length(row_texts[1]);
        END IF;
    ELSE
        outcome.row_count := 0;
        LOOP
            FETCH results INTO item;
            EXIT WHEN NOT FOUND;
            IF outcome.row_count = 0 THEN
                outcome.column_names := ARRAY(SELECT json_object_keys(row_to_json(item)));
                outcome.column_types := celery_pgbg.column_types(item);
            END IF;
            row_text := item::text;
            result_bytes := result_bytes + octet_length(row_text);
            EXIT WHEN result_bytes > max_result_bytes;
            row_texts := array_append(row_texts, row_text);
            outcome.row_count := outcome.row_count + 1;
        END LOOP;
        CLOSE results;
    END IF;

    IF result_bytes > max_result_bytes THEN
        RAISE program_limit_exceeded USING
            MESSAGE = 'the result is larger than pgbg_max_result_bytes (' || max_result_bytes || ' bytes)',
            DETAIL = 'The statement was rolled back.',
            HINT = 'Return fewer rows, write them to a table, or raise pgbg_max_result_bytes.',
            TABLE = 'celery_pgbg.outcome';
    END IF;
    IF outcome.column_names IS NULL AND outcome.row_count > 0 THEN
        outcome.column_names := ARRAY(SELECT json_object_keys(row_to_json(item)));
        outcome.column_types := celery_pgbg.column_types(item);
    END IF;
    outcome.row_texts := row_texts;
END;
$$;
