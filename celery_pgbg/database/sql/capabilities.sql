-- What the installed pg_background can do, by looking its functions up in its own schema.
SELECT
    namespace.nspname AS schema,
    extension.extversion AS version,
    array_agg(DISTINCT procedure.proname::text) AS functions,
    current_setting('max_worker_processes')::integer AS server_worker_limit,
    has_schema_privilege(namespace.oid, 'USAGE') AND bool_or(
        procedure.proname IN ('pg_background_launch', 'pg_background_launch_v2')
        AND has_function_privilege(procedure.oid, 'EXECUTE')
    ) AS may_launch,
    current_setting('server_version_num')::integer AS server_version
FROM pg_catalog.pg_extension AS extension
JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = extension.extnamespace
JOIN pg_catalog.pg_depend AS dependency
    ON dependency.refobjid = extension.oid AND dependency.deptype = 'e'
    AND dependency.refclassid = 'pg_catalog.pg_extension'::regclass
    AND dependency.classid = 'pg_catalog.pg_proc'::regclass
JOIN pg_catalog.pg_proc AS procedure ON procedure.oid = dependency.objid
WHERE extension.extname = 'pg_background'
GROUP BY namespace.oid, namespace.nspname, extension.extversion
