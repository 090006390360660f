-- The result of a stopped background worker of this session: the number of rows, and the command tag if that is the only
-- column. Ends the handle; raises the background worker's own error.
SELECT count(*), {value} FROM {result_function}(%(pid)s::integer, %(cookie)s::bigint) AS result ({columns})
