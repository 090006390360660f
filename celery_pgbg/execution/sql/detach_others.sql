-- Forget the handles of this session, which an earlier client of a pooler may have left; stops no worker. Keeps those
-- of some PIDs.
SELECT {detach_function}(pid, cookie) FROM {list_function}() AS ({list_columns})
WHERE pid <> ALL (%(kept_pids)s::integer[])
