-- The extension's functions and types, as they are written in catalogs.json.
SELECT
    array_agg(
        procedure.proname || '(' || pg_get_function_arguments(procedure.oid) || ') returns '
            || pg_get_function_result(procedure.oid)
        ORDER BY procedure.proname::text COLLATE "C", pg_get_function_arguments(procedure.oid)
    ) FILTER (WHERE procedure.oid IS NOT NULL) AS functions,
    jsonb_object_agg(type.typname, (
        SELECT string_agg(attname || ' ' || format_type(atttypid, NULL), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = type.typrelid AND attnum > 0
    )) FILTER (WHERE type.typtype = 'c') AS types
FROM pg_depend AS dependency
JOIN pg_extension AS extension ON extension.oid = dependency.refobjid
LEFT JOIN pg_proc AS procedure ON procedure.oid = dependency.objid AND dependency.classid = 'pg_proc'::regclass
LEFT JOIN pg_type AS type ON type.oid = dependency.objid AND dependency.classid = 'pg_type'::regclass
WHERE extension.extname = 'pg_background' AND dependency.deptype = 'e'
