-- Whether this session may keep state that cannot be reset: connections of dblink, and memory of procedural languages,
-- such as PL/Python's GD. From PostgreSQL 18 on the loaded libraries are visible; before, only the installed
-- extensions are.
CREATE OR REPLACE FUNCTION celery_pgbg.keeps_state() RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    IF pg_catalog.current_setting('server_version_num')::integer OPERATOR(pg_catalog.<) 180000 THEN
        RETURN EXISTS (
            SELECT FROM pg_catalog.pg_extension AS extension
            WHERE extension.extname OPERATOR(pg_catalog.~) '^(dblink|plpython|plperl|pltcl|plv8|plr|pllua|pljava)'
        );
    END IF;
    RETURN EXISTS (
        SELECT FROM pg_catalog.pg_get_loaded_modules() AS module
        WHERE module.file_name OPERATOR(pg_catalog.~) '^(dblink|plpython|plperl|pltcl|plv8|plr|pllua|pljava)'
    );
END;
$$;
