-- Set up a session that sends. What it declares, a transaction of the calling thread may have declared and not committed, so
-- it does not wait for ever. Our statements are written for READ COMMITTED, whatever the database's default is.
SELECT
    pg_catalog.set_config('lock_timeout', '10s', false),
    pg_catalog.set_config('default_transaction_isolation', 'read committed', false)
