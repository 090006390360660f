-- An error's fields as an outcome has them: those of psycopg's Diagnostic that are set.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_failure(
    sqlstate text, message text, detail text, hint text, context text, schema_name text, table_name text,
    column_name text, datatype_name text, constraint_name text
) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object('sqlstate', sqlstate, 'message', message, 'fields', jsonb_build_object(
        'message_detail', nullif(detail, ''), 'message_hint', nullif(hint, ''),
        'context', nullif(context, ''), 'schema_name', nullif(schema_name, ''),
        'table_name', nullif(table_name, ''), 'column_name', nullif(column_name, ''),
        'datatype_name', nullif(datatype_name, ''), 'constraint_name', nullif(constraint_name, '')
    ))
$$;
