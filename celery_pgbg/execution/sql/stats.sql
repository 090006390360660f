-- pg_background's own counters for this session.
SELECT * FROM {stats_function}()
