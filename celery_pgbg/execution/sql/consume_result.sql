-- The result of a stopped worker of this session, which ends its handle; raises the worker's own error. How many rows
-- there are, and the only one's text where there are no columns but the command tag.
SELECT count(*), {value} FROM {result_function}(%(pid)s::integer, %(cookie)s::bigint) AS result ({columns})
