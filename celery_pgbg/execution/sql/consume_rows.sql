-- The rows of a stopped worker of this session, which ends its handle; raises the worker's own error. How many, and
-- each as PostgreSQL prints a composite value, in their order.
SELECT count(*), coalesce(array_agg(result::text), '{{}}') FROM {result_function}(%(pid)s::integer, %(cookie)s::bigint) AS result ({columns})
