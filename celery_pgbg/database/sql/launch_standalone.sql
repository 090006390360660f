-- Launch a statement that stands alone, on a launcher session that has no other handle.
-- Its queue, in bytes, has room for what VERBOSE tells of many tables.
SELECT pid, cookie FROM {launch_function}(%(statement)s::text, 1048576)
