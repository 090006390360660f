-- Plan each prepared statement of this session once, for any values: otherwise statements with arrays are planned at each
-- call, which takes as long as running them. A plan made while a table is empty must suit the full table, and is never
-- compiled. Our statements are written for READ COMMITTED and for row security, whatever the database's defaults are: with
-- row_security off the server would refuse our own tables.
-- Not for a session that launches: background workers inherit its settings.
SELECT
    pg_catalog.set_config('default_transaction_isolation', 'read committed', false),
    pg_catalog.set_config('row_security', 'on', false),
    pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', false),
    pg_catalog.set_config('enable_seqscan', 'off', false),
    pg_catalog.set_config('jit', 'off', false)
