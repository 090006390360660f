-- The error of a stopped worker of this session without ending its handle; NULLs where none is on record, which it is
-- not of one that was ended (FATAL).
SELECT {error_fields} FROM {error_info_function}(%(pid)s::integer, %(cookie)s::bigint) AS error
