-- All handles of this session with their state, running or stopped.
SELECT pid, cookie, state FROM {list_function}() AS ({list_columns})
