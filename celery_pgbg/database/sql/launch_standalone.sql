-- Launch a statement that stands alone, on a launcher session that has no other handle.
SELECT pid, cookie FROM {launch_function}(%(statement)s::text)
