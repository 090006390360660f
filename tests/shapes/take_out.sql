-- Take all that pg_background 2 consists of out of the extension, into the schema newer: the functions of an older
-- shape are put in their place, and call them.
CREATE SCHEMA newer;
GRANT USAGE ON SCHEMA newer TO PUBLIC;
DO $$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT
            CASE dependency.classid
                WHEN 'pg_proc'::regclass THEN 'FUNCTION ' || dependency.objid::regprocedure
                WHEN 'pg_class'::regclass THEN 'VIEW ' || dependency.objid::regclass
                ELSE 'TYPE ' || dependency.objid::regtype
            END AS object
        FROM pg_depend AS dependency
        JOIN pg_extension AS extension ON extension.oid = dependency.refobjid
        LEFT JOIN pg_type AS type ON type.oid = dependency.objid AND dependency.classid = 'pg_type'::regclass
        LEFT JOIN pg_class AS relation ON relation.oid = type.typrelid
        WHERE extension.extname = 'pg_background' AND dependency.deptype = 'e'
            -- these come along
            AND type.typcategory IS DISTINCT FROM 'A' AND relation.relkind IS DISTINCT FROM 'v'
        ORDER BY dependency.classid <> 'pg_proc'::regclass
    LOOP
        EXECUTE 'ALTER EXTENSION pg_background DROP ' || member.object;
        EXECUTE 'ALTER ' || member.object || ' SET SCHEMA newer';
    END LOOP;
END $$;

-- How often a session did what crashes the server before 2.0. Not rolled back with the error that it gets.
CREATE SEQUENCE newer.crashes;
GRANT USAGE ON SEQUENCE newer.crashes TO PUBLIC;

CREATE FUNCTION newer.crash(what text) RETURNS void LANGUAGE plpgsql
AS $$ BEGIN
    PERFORM nextval('newer.crashes');
    RAISE 'this would have crashed the server: %', what;
END $$;

CREATE FUNCTION newer.handles() RETURNS TABLE (
    pid integer, cookie bigint, launched_at timestamptz, user_id oid, queue_size integer, state text,
    sql_preview text, last_error text, consumed boolean, label text
) LANGUAGE sql
AS $$ SELECT * FROM newer.pg_background_list() AS (
    pid integer, cookie bigint, launched_at timestamptz, user_id oid, queue_size integer, state text,
    sql_preview text, last_error text, consumed boolean, label text
) $$;
