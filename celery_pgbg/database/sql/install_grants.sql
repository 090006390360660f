-- Let a role launch SQL tasks and keep their outcomes. The extension's schema is often one that not everybody may use.
GRANT USAGE ON SCHEMA celery_pgbg TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA celery_pgbg TO {role};
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA celery_pgbg TO {role};
GRANT pgbackground_role TO {role};
DO $$
DECLARE
    extension_schema CONSTANT regnamespace := (SELECT extnamespace FROM pg_extension WHERE extname = 'pg_background');
BEGIN
    IF NOT has_schema_privilege({role_name}, extension_schema, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO %I', extension_schema, {role_name});
    END IF;
END $$;
