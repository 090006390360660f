-- Forget all handles of this session, which an earlier client of a pooler may have left; stops no worker.
SELECT {detach_function}(pid, cookie) FROM {list_function}() AS ({list_columns})
