-- The types of a record's columns, domains as the types below them, read from the record's binary
-- form. NULL where a type has no binary form.
CREATE OR REPLACE FUNCTION celery_pgbg.column_types(item record) RETURNS oid[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    message CONSTANT bytea := record_send(item);
    types oid[] := '{}';
    type_oid oid;
    base_oid oid;
    length bigint;
    place integer := 4;
BEGIN
    FOR number IN 1 .. celery_pgbg.uint4_at(message, 0) LOOP
        type_oid := celery_pgbg.uint4_at(message, place)::oid;
        LOOP
            SELECT typbasetype INTO base_oid FROM pg_catalog.pg_type WHERE oid = type_oid AND typtype = 'd';
            EXIT WHEN NOT FOUND;
            type_oid := base_oid;
        END LOOP;
        types := types || type_oid;
        length := celery_pgbg.uint4_at(message, place + 4);
        -- 2^32 - 1 stands for NULL, which has no bytes
        place := place + 8 + CASE WHEN length = 4294967295 THEN 0 ELSE length END;
    END LOOP;
    RETURN types;
EXCEPTION WHEN undefined_function THEN
    RETURN NULL;
END;
$$;
