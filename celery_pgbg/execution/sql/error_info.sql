-- The error of a stopped background worker of this session, without ending its handle. NULLs if no error is on record, as
-- after an end by a signal (FATAL).
SELECT {error_fields} FROM {error_info_function}(%(pid)s::integer, %(cookie)s::bigint) AS error
