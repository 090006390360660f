-- Forget a handle of this session; does not stop its worker.
SELECT {detach_function}(%(pid)s::integer, %(cookie)s::bigint)
