-- The rows of a stopped background worker of this session: their number, and each row as PostgreSQL prints a composite
-- value, in order. Ends the handle; raises the background worker's own error.
SELECT count(*), coalesce(array_agg(result::text), '{{}}') FROM {result_function}(%(pid)s::integer, %(cookie)s::bigint) AS result ({columns})
