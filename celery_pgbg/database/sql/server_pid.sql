-- Which process serves this session; another PID than the connection was told means a pooler in between.
SELECT pg_backend_pid()
