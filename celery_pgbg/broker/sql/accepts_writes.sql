-- Whether this server, database and role accept writes: not on a standby. Any session.
SELECT pg_catalog.current_setting('transaction_read_only') = 'off'
