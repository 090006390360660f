-- Run the statement of an attempt, in the subtransaction of run_v1 and with all that a task may ask for: a role, statements
-- before it, all its rows, a parallel plan. Returns what the outcome keeps of it; column_types is NULL without columns.
--
-- Opening a cursor shows, without executing anything, whether the statement returns rows: for a statement without rows
-- it fails with invalid_cursor_definition.
--
-- A cursor rules out a parallel plan. So for a plain query that may be long, a cursor shows only the columns; then an
-- aggregate around the query collects the rows.
--
-- Returns a table of one row. With OUT parameters alone, PL/pgSQL would look up this function in the catalog at its end,
-- when the statement may have dropped the schema and made it again.
--
-- Calls no function of ours, because the statement's role may have no right to. Its own errors have our table's name;
-- store_failure has their texts.
CREATE OR REPLACE FUNCTION celery_pgbg.execute_statement(
    preamble pg_catalog.text,
    statement pg_catalog.text,
    is_plain_query boolean,
    returns pg_catalog.text,
    role_name pg_catalog.text,
    max_result_bytes bigint
) RETURNS TABLE (
    column_names pg_catalog.text, column_types pg_catalog.bytea, row_texts pg_catalog.text[], row_count bigint
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    first_only CONSTANT boolean := (returns OPERATOR(pg_catalog.=) 'value') OR (returns OPERATOR(pg_catalog.=) 'row');
    statement_timeout pg_catalog.text;
    results pg_catalog.refcursor;
    columns pg_catalog.record;
    item pg_catalog.record;
    row_text pg_catalog.text;
    row_bytes integer;
    result_bytes bigint;
    date_style pg_catalog.text;
    interval_style pg_catalog.text;
BEGIN
    IF role_name IS NOT NULL OR preamble IS NOT NULL THEN
        IF role_name IS NOT NULL THEN
            PERFORM pg_catalog.set_config('role', role_name, true);
        END IF;
        IF preamble IS NOT NULL THEN
            statement_timeout := pg_catalog.current_setting('statement_timeout');
            EXECUTE preamble;
            IF pg_catalog.current_setting('statement_timeout') OPERATOR(pg_catalog.<>) statement_timeout THEN
                RAISE feature_not_supported USING
                    TABLE = 'celery_pgbg.outcome', HINT = pg_catalog.current_setting('statement_timeout');
            END IF;
        END IF;
    END IF;

    IF (returns OPERATOR(pg_catalog.=) 'count') IS NOT TRUE THEN
        BEGIN
            OPEN results FOR EXECUTE statement;
        EXCEPTION WHEN invalid_cursor_definition THEN
            IF returns IS NOT NULL THEN
                RAISE syntax_error USING TABLE = 'celery_pgbg.outcome';
            END IF;
        END;
    END IF;
    IF results IS NULL THEN
        EXECUTE statement;
        GET DIAGNOSTICS row_count = ROW_COUNT;
    ELSE
        -- a row of NULLs, with the names and types of the columns
        FETCH RELATIVE 0 FROM results INTO columns;
        column_names := pg_catalog.row_to_json(columns);
        column_types := pg_catalog.record_send(columns);
        IF is_plain_query OR first_only IS NOT TRUE THEN
            -- about what a row takes in Python beside its text: a dict and its values
            row_bytes := 80 OPERATOR(pg_catalog.+) (
                6 OPERATOR(pg_catalog.*) pg_catalog.octet_length(column_types)
            );
        END IF;
        IF is_plain_query THEN
            CLOSE results;
            EXECUTE pg_catalog.format(
                'SELECT pg_catalog.array_agg(w.item) FILTER (WHERE %s) AS items, pg_catalog.max(w.bytes) AS bytes
                FROM (
                    SELECT
                        ROW(q.*) AS item,
                        pg_catalog.row_number() OVER () AS number,
                        pg_catalog.sum(pg_catalog.pg_column_size(q.*)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
                    FROM (%s
                    ) AS q
                    LIMIT %s
                ) AS w',
                CASE WHEN first_only THEN 'w.number OPERATOR(pg_catalog.=) 1'
                    ELSE pg_catalog.concat('w.bytes OPERATOR(pg_catalog.<=) ', max_result_bytes)
                END,
                statement,
                CASE WHEN first_only THEN 'ALL'
                    -- one more than fit
                    ELSE pg_catalog.concat((max_result_bytes OPERATOR(pg_catalog./) row_bytes) OPERATOR(pg_catalog.+) 1)
                END
            ) INTO item;
            date_style := pg_catalog.current_setting('datestyle');
            interval_style := pg_catalog.current_setting('intervalstyle');
            PERFORM
                pg_catalog.set_config('datestyle', 'ISO', true),
                pg_catalog.set_config('intervalstyle', 'postgres', true);
            row_texts := item.items::pg_catalog.text[];
            PERFORM
                pg_catalog.set_config('datestyle', date_style, true),
                pg_catalog.set_config('intervalstyle', interval_style, true);
            result_bytes := (COALESCE(pg_catalog.cardinality(row_texts), 0) OPERATOR(pg_catalog.*) row_bytes) OPERATOR(pg_catalog.+)
                GREATEST(
                    CASE WHEN first_only IS NOT TRUE THEN item.bytes END, pg_catalog.pg_column_size(row_texts)
                );
        ELSE
            -- For a row or a value, keep the first row and run through the others.
            LOOP
                FETCH results INTO item;
                EXIT WHEN NOT FOUND;
                -- the statement may have set styles, and others for each row
                IF pg_catalog.concat(
                    pg_catalog.left(pg_catalog.current_setting('datestyle'), 3),
                    pg_catalog.current_setting('intervalstyle')
                ) OPERATOR(pg_catalog.=) 'ISOpostgres' THEN
                    row_text := item::pg_catalog.text;
                ELSE
                    date_style := pg_catalog.current_setting('datestyle');
                    interval_style := pg_catalog.current_setting('intervalstyle');
                    PERFORM
                        pg_catalog.set_config('datestyle', 'ISO', true),
                        pg_catalog.set_config('intervalstyle', 'postgres', true);
                    row_text := item::pg_catalog.text;
                    PERFORM
                        pg_catalog.set_config('datestyle', date_style, true),
                        pg_catalog.set_config('intervalstyle', interval_style, true);
                END IF;
                IF first_only THEN
                    row_texts := ARRAY[row_text];
                    MOVE FORWARD ALL FROM results;
                    EXIT;
                END IF;
                result_bytes := COALESCE(result_bytes, 0) OPERATOR(pg_catalog.+) row_bytes
                    OPERATOR(pg_catalog.+) pg_catalog.octet_length(row_text);
                EXIT WHEN result_bytes OPERATOR(pg_catalog.>) max_result_bytes;
                row_texts := pg_catalog.array_append(row_texts, row_text);
            END LOOP;
            CLOSE results;
        END IF;
        IF COALESCE(result_bytes, pg_catalog.octet_length(row_text)) OPERATOR(pg_catalog.>) max_result_bytes THEN
            RAISE program_limit_exceeded USING TABLE = 'celery_pgbg.outcome';
        END IF;
        row_count := COALESCE(pg_catalog.cardinality(row_texts), 0);
    END IF;
    RETURN NEXT;
END;
$$;
