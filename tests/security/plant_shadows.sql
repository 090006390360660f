-- Plants, in the schema shadow, something for each operator, function and type that our SQL may name, and for mixtures
-- of our types; each counts its calls in a sequence of its own, which a rollback does not undo, and fails.
-- Settings: plant.words has every word in our SQL, plant.signs every operator in it, as arrays.
SET search_path = pg_catalog;
CREATE SCHEMA shadow;
GRANT USAGE ON SCHEMA shadow TO PUBLIC;
CREATE TABLE shadow.work AS SELECT 1 AS n;
CREATE FUNCTION shadow.hit(name text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM nextval(format('shadow.%I', 'called ' || name));
    RETURN true;
END $$;
CREATE FUNCTION shadow.body(name text) RETURNS text LANGUAGE sql SET search_path = pg_catalog AS $$
    SELECT format('AS %L', format('BEGIN PERFORM shadow.hit(%L); RAISE EXCEPTION ''the shadow of %%'', %L; END', name, name))
$$;

DO $plant$
DECLARE
    words CONSTANT text[] := current_setting('plant.words');
    signs CONSTANT text[] := current_setting('plant.signs');
    types CONSTANT regtype[] := '{integer,bigint,text,name,timestamptz,interval,float8,numeric,oid,regrole}';
    made record;
BEGIN
    FOR made IN
        SELECT proname AS name FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (words)
        UNION SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typname = ANY (words)
        UNION SELECT unnest(signs)
    LOOP
        EXECUTE format('CREATE SEQUENCE shadow.%I', 'called ' || made.name);
    END LOOP;

    FOR made IN
        SELECT
            p.proname, p.proretset, p.prorettype::regtype AS result,
            CASE WHEN p.provariadic = '"any"'::regtype THEN 'VARIADIC text[]'
                ELSE pg_get_function_identity_arguments(p.oid) END AS arguments
        FROM pg_proc AS p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (words)
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE FUNCTION shadow.%I(%s) RETURNS %s %s LANGUAGE plpgsql %s', made.proname, made.arguments,
                CASE WHEN made.proretset THEN 'SETOF' END, made.result, shadow.body(made.proname)
            );
        EXCEPTION WHEN duplicate_function OR invalid_function_definition OR syntax_error OR feature_not_supported THEN
            NULL; -- what has no such form, as aggregates of any order
        END;
    END LOOP;

    FOR made IN
        SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result
        FROM pg_operator AS o
        WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprname = ANY (signs) AND o.oprleft <> 0
            AND (o.oprleft = ANY (types || '{boolean,bytea,jsonb,xid8,anyarray}'::regtype[]) OR o.oprright = ANY (types))
            AND NOT (o.oprleft = ANY (types) AND o.oprright = ANY (types) AND o.oprname = ANY ('{=,<>,<,>,||,+,-}'))
        UNION
        SELECT sign, l, r, 'boolean' FROM unnest(signs) AS sign, unnest(types) AS l, unnest(types) AS r
        WHERE sign = ANY ('{=,<>,<,>,||,+,-}')
    LOOP
        EXECUTE format('CREATE FUNCTION shadow.%I(%s, %s) RETURNS %s LANGUAGE plpgsql %s',
            'operator ' || made.oprname, made.l, made.r, made.result, shadow.body(made.oprname));
        EXECUTE format('CREATE OPERATOR shadow.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = shadow.%I)',
            made.oprname, made.l, made.r, 'operator ' || made.oprname);
    END LOOP;

    FOR made IN
        SELECT typname, oid::regtype AS base FROM pg_type
        WHERE typnamespace = 'pg_catalog'::regnamespace AND typname = ANY (words) AND typtype = 'b'
    LOOP
        EXECUTE format(
            'CREATE DOMAIN shadow.%I AS %s CHECK (shadow.hit(%L))', made.typname, made.base, made.typname
        );
    END LOOP;
END $plant$;

-- The same for types in the temporary schema of the session that calls it, which comes first for types and tables.
CREATE FUNCTION shadow.plant_in_temp() RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT typname, typbasetype::regtype AS base FROM pg_type
        WHERE typnamespace = 'shadow'::regnamespace AND typtype = 'd'
    LOOP
        EXECUTE format(
            'CREATE DOMAIN pg_temp.%I AS %s CHECK (shadow.hit(%L))', made.typname, made.base, made.typname
        );
    END LOOP;
    FOR made IN SELECT relname FROM pg_class WHERE relnamespace = 'celery_pgbg'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('CREATE TEMPORARY TABLE %I ()', made.relname);
    END LOOP;
    RETURN 1;
END $$;
