-- Describe the key that a batched task walks: quoted names, types, operators, all fit to be put into a statement
-- that runs with any search path. Fails unless there is a unique index on exactly these columns, in this order.
--
-- The operators are those of the index, so that a range is a range of the index. For NULL as a table's OID the
-- name is unknown.
CREATE OR REPLACE FUNCTION celery_pgbg.walk_key(table_oid oid, table_name text, columns text[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
DECLARE
    missing text;
    unique_index record;
    described jsonb;
    operators text[];
BEGIN
    IF table_oid IS NULL THEN
        RAISE undefined_table USING MESSAGE = format('relation "%s" does not exist', table_name);
    END IF;
    SELECT wanted.name INTO missing
    FROM unnest(columns) AS wanted (name)
    WHERE NOT EXISTS (
        SELECT FROM pg_attribute AS a
        WHERE a.attrelid = table_oid AND a.attname = wanted.name AND a.attnum > 0 AND NOT a.attisdropped
    )
    LIMIT 1;
    IF FOUND THEN
        RAISE undefined_column USING MESSAGE = format('column "%s" of relation "%s" does not exist', missing, table_name);
    END IF;

    SELECT i.indclass, i.indcollation INTO unique_index
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'
    WHERE i.indrelid = table_oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
        AND (string_to_array(i.indkey::text, ' '))[1:i.indnkeyatts] = ARRAY(
            SELECT a.attnum::text
            FROM unnest(columns) WITH ORDINALITY AS wanted (name, place)
            JOIN pg_attribute AS a ON a.attrelid = table_oid AND a.attname = wanted.name
            ORDER BY wanted.place
        )
        -- all columns in one direction: else the index cannot serve a comparison of rows
        AND (
            SELECT count(DISTINCT o.option::integer & 1) = 1
            FROM unnest((string_to_array(i.indoption::text, ' '))[1:i.indnkeyatts]) AS o (option)
        )
    ORDER BY i.indisprimary DESC, i.indexrelid
    LIMIT 1;
    IF NOT FOUND THEN
        RAISE invalid_column_reference USING
            MESSAGE = format('"%s" has no unique index on (%s)', table_name, array_to_string(columns, ', ')),
            HINT = 'A batched task walks its key by a valid unique B-tree index on just these columns in this order.';
    END IF;

    SELECT
        jsonb_agg(jsonb_build_object(
            'name', format('%I', a.attname),
            'type', format('%I.%I', n.nspname, t.typname),
            'base', celery_pgbg.base_type(t.oid)::regtype::text,
            'collate', CASE WHEN unique_index.indcollation[k.place - 1] <> a.attcollation
                THEN (
                    SELECT format(' COLLATE %I.%I', cn.nspname, co.collname)
                    FROM pg_collation AS co JOIN pg_namespace AS cn ON cn.oid = co.collnamespace
                    WHERE co.oid = unique_index.indcollation[k.place - 1]
                )
                ELSE '' END,
            'may_be_null', NOT a.attnotnull
        ) ORDER BY k.place),
        array_agg(DISTINCT o.names)
    INTO described, operators
    FROM unnest(columns) WITH ORDINALITY AS k (name, place)
    JOIN pg_attribute AS a ON a.attrelid = table_oid AND a.attname = k.name
    JOIN pg_type AS t ON t.oid = a.atttypid
    JOIN pg_namespace AS n ON n.oid = t.typnamespace
    JOIN pg_opclass AS oc ON oc.oid = unique_index.indclass[k.place - 1]
    CROSS JOIN LATERAL (
        -- less, at most, greater
        SELECT string_agg(format('OPERATOR(%I.%s)', opn.nspname, op.oprname), ' ' ORDER BY am.amopstrategy) AS names
        FROM pg_amop AS am
        JOIN pg_operator AS op ON op.oid = am.amopopr
        JOIN pg_namespace AS opn ON opn.oid = op.oprnamespace
        WHERE am.amopfamily = oc.opcfamily AND am.amoplefttype = oc.opcintype AND am.amoprighttype = oc.opcintype
            AND am.amopstrategy IN (1, 2, 5) AND am.amoppurpose = 's'
    ) AS o;
    IF cardinality(operators) > 1 THEN
        RAISE feature_not_supported USING
            MESSAGE = format('the columns (%s) cannot be compared as one row', array_to_string(columns, ', ')),
            DETAIL = format('Their types have operators of different names or schemas: %s.', operators);
    END IF;
    RETURN jsonb_build_object(
        'table', (
            SELECT format('%I.%I', n.nspname, c.relname)
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = table_oid
        ),
        'rows', (SELECT nullif(greatest(c.reltuples, 0), 0)::bigint FROM pg_class AS c WHERE c.oid = table_oid),
        'columns', described,
        'less', split_part(operators[1], ' ', 1),
        'at_most', split_part(operators[1], ' ', 2),
        'greater', split_part(operators[1], ' ', 3)
    );
END;
$$;
