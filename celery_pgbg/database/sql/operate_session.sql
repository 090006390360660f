-- Which process serves this session; another PID than the connection's own means a pooler in between.
SELECT pg_backend_pid(), current_setting('server_version_num')::integer, current_user::text
