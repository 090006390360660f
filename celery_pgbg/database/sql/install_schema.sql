-- Make our schema, refuse one that others have prepared, and make the record of migrations.
CREATE SCHEMA IF NOT EXISTS celery_pgbg;
DO $check$
DECLARE
    stranger record;
BEGIN
    -- A stranger's object, such as a view or a table with a trigger, would run code as the installing role.
    SELECT owned.what, pg_get_userbyid(owned.owner) AS owner INTO stranger
    FROM pg_namespace AS schema
    CROSS JOIN LATERAL (
        SELECT 'schema celery_pgbg' AS what, schema.nspowner AS owner
        UNION ALL
        SELECT relation.oid::regclass::text, relation.relowner FROM pg_class AS relation
        WHERE relation.relnamespace = schema.oid
        UNION ALL
        SELECT routine.oid::regprocedure::text, routine.proowner FROM pg_proc AS routine
        WHERE routine.pronamespace = schema.oid
        UNION ALL
        SELECT type.oid::regtype::text, type.typowner FROM pg_type AS type WHERE type.typnamespace = schema.oid
        UNION ALL
        SELECT operator.oid::regoperator::text, operator.oprowner FROM pg_operator AS operator
        WHERE operator.oprnamespace = schema.oid
    ) AS owned
    JOIN pg_roles AS role ON role.oid = owned.owner
    WHERE schema.nspname = 'celery_pgbg' AND NOT role.rolsuper AND role.rolname <> current_user
    LIMIT 1;
    IF FOUND THEN
        RAISE invalid_schema_definition USING
            MESSAGE = format('%s belongs to role %I, which is neither a superuser nor the installing role', stranger.what, stranger.owner),
            DETAIL = 'Objects of other roles in this schema would run with the rights of the installing role.',
            HINT = format(
                'Install as %I; or inspect the schema celery_pgbg, then drop it or give it to a role you trust.',
                stranger.owner
            );
    END IF;
END;
$check$;
GRANT USAGE ON SCHEMA celery_pgbg TO PUBLIC;
CREATE TABLE IF NOT EXISTS celery_pgbg.migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
