-- Make the extension of all that lies in the schema public, as the older line's script does.
DO $$
DECLARE
    object text;
BEGIN
    FOR object IN
        SELECT 'FUNCTION ' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT 'TYPE ' || oid::regtype FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'c'
    LOOP
        EXECUTE 'ALTER EXTENSION pg_background ADD ' || object;
        IF object LIKE 'FUNCTION%' THEN
            EXECUTE 'REVOKE ALL ON ' || object || ' FROM PUBLIC';
            IF object NOT LIKE '%privileges%' AND object NOT LIKE '%drop_executor_role%' THEN
                EXECUTE 'GRANT EXECUTE ON ' || object || ' TO pgbackground_role';
            END IF;
        END IF;
    END LOOP;
END $$;
UPDATE pg_extension SET extversion = {version} WHERE extname = 'pg_background';
