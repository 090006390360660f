-- Grant the members everything in the schema now. Grant all others only the report of progress, the current task, and
-- the call of a procedure with the caller's own rights, because the role of a task may use them. Not every
-- role may use the extension's schema.
REVOKE ALL ON ALL ROUTINES IN SCHEMA celery_pgbg FROM PUBLIC;
GRANT EXECUTE ON FUNCTION celery_pgbg.report_progress, celery_pgbg.current_task, celery_pgbg.call_procedure TO PUBLIC;
DELETE FROM celery_pgbg.member WHERE NOT EXISTS (SELECT FROM pg_roles WHERE pg_roles.oid = member.role);
DO $grants$
DECLARE
    extension_schema CONSTANT regnamespace := (SELECT extnamespace FROM pg_extension WHERE extname = 'pg_background');
    member regrole;
BEGIN
    FOR member IN SELECT m.role FROM celery_pgbg.member AS m ORDER BY m.role LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA celery_pgbg TO %s', member);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA celery_pgbg TO %s', member);
        EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA celery_pgbg TO %s', member);
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON celery_pgbg.migration, celery_pgbg.member FROM %s', member);
        EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA celery_pgbg TO %s', member);
        IF NOT pg_has_role(member, 'pgbackground_role', 'USAGE') THEN
            EXECUTE format('GRANT pgbackground_role TO %s', member);
        END IF;
        IF NOT has_schema_privilege(member, extension_schema, 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', extension_schema, member);
        END IF;
    END LOOP;
END;
$grants$;
