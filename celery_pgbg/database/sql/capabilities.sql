-- The installed pg_background's own functions, by pg_depend, with their arguments and results. Other functions of the
-- same names in its schema are not its own.
SELECT
    namespace.nspname AS schema,
    extension.extversion AS version,
    current_setting('max_worker_processes')::integer AS server_worker_limit,
    current_setting('server_version_num')::integer AS server_version,
    jsonb_agg(jsonb_build_object(
        'name', procedure.proname,
        'arguments', oidvectortypes(procedure.proargtypes),
        'result', coalesce(result.columns, format_type(procedure.prorettype, NULL)),
        'is_granted', has_schema_privilege(namespace.oid, 'USAGE') AND has_function_privilege(procedure.oid, 'EXECUTE')
    )) AS functions
FROM pg_catalog.pg_extension AS extension
JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = extension.extnamespace
JOIN pg_catalog.pg_depend AS dependency
    ON dependency.refobjid = extension.oid AND dependency.deptype = 'e'
    AND dependency.refclassid = 'pg_catalog.pg_extension'::regclass
    AND dependency.classid = 'pg_catalog.pg_proc'::regclass
JOIN pg_catalog.pg_proc AS procedure ON procedure.oid = dependency.objid AND procedure.pronamespace = namespace.oid
JOIN pg_catalog.pg_type AS type ON type.oid = procedure.prorettype
LEFT JOIN LATERAL (
    -- of a composite type; NULL of any other
    SELECT string_agg(attname || ' ' || format_type(atttypid, NULL), ', ' ORDER BY attnum) AS columns
    FROM pg_catalog.pg_attribute
    WHERE attrelid = type.typrelid AND attnum > 0 AND NOT attisdropped
) AS result ON type.typtype = 'c'
WHERE extension.extname = 'pg_background'
GROUP BY namespace.nspname, extension.extversion
