-- The functions and procedures of a name that a statement can call, with their arguments.
--
-- A name without a schema is looked up in the session's search_path. Types are written as a cast needs them; NULL for
-- types that only a call decides, such as anyelement.
SELECT
    n.nspname,
    p.proname,
    (p.prokind = 'p') AS is_procedure,
    pg_catalog.pg_get_function_arguments(p.oid) AS described,
    coalesce(p.proargnames, '{}') AS names,
    coalesce(p.proargmodes::text[], pg_catalog.array_fill('i'::text, ARRAY[p.pronargs::integer])) AS modes,
    ARRAY(
        SELECT CASE WHEN t.typtype <> 'p' THEN format('%%I.%%I', s.nspname, t.typname) END
        FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS a (oid, number)
        JOIN pg_catalog.pg_type AS t ON t.oid = a.oid
        JOIN pg_catalog.pg_namespace AS s ON s.oid = t.typnamespace
        ORDER BY a.number
    ) AS types,
    p.pronargdefaults AS defaults
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_catalog.parse_ident(%(name)s) AS given (parts) ON p.proname = given.parts[cardinality(given.parts)]
WHERE CASE
        WHEN cardinality(given.parts) = 1 THEN pg_catalog.pg_function_is_visible(p.oid)
        WHEN cardinality(given.parts) = 2 THEN n.nspname = given.parts[1]
    END
    AND (p.prokind = 'f' OR p.prokind = 'p')
ORDER BY described
