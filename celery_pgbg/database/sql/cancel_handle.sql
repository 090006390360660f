-- Stop a background worker of this session; its transaction rolls back. Never with a grace.
SELECT {cancel_function}(%(pid)s::integer, %(cookie)s::bigint)
