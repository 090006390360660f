-- Which process serves this session; another PID than the connection was given means that a pooler is in between.
SELECT pg_backend_pid()
