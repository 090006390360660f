-- The result of a stopped worker, which ends its handle; raises the worker's own error.
SELECT result FROM {result_function}(%(pid)s::integer, %(cookie)s::bigint) AS (result text)
