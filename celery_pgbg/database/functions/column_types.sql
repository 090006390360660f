-- The types of a row's columns, domains as the types below them, read from the row's binary form: each
-- column's type and length, four bytes each, then its value. For readers, whose sessions live long;
-- in the background worker, a new process, it would cost more than the rest of a small task. In
-- PL/pgSQL, which keeps the plan.
CREATE OR REPLACE FUNCTION celery_pgbg.column_types(first_row bytea) RETURNS oid[]
LANGUAGE plpgsql STABLE STRICT
AS $$
BEGIN
    RETURN (WITH RECURSIVE field AS (
        SELECT 0 AS number, 5 AS place, 0::oid AS type_oid
        UNION ALL
        -- a length of -1 stands for NULL, which has no bytes
        SELECT
            field.number + 1,
            field.place + 8 + greatest(
                ('x' || encode(substring(first_row FROM field.place + 4 FOR 4), 'hex'))::bit(32)::integer, 0
            ),
            ('x' || encode(substring(first_row FROM field.place FOR 4), 'hex'))::bit(32)::bigint::oid
        FROM field
        WHERE field.place < octet_length(first_row)
    )
    SELECT array_agg(
        CASE WHEN field.type_oid < 16384 THEN field.type_oid ELSE celery_pgbg.base_type(field.type_oid) END
        ORDER BY field.number
    )
    FROM field
    WHERE field.number > 0);
END;
$$;
