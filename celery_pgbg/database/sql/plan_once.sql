-- Plan each prepared statement of this session once, for any values: those with arrays are planned at each call else, which
-- takes as long as running them. What is planned while a table is empty shall suit it full, and never be compiled.
-- Not for a session that launches: background workers inherit what it has set.
SELECT
    pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', false),
    pg_catalog.set_config('enable_seqscan', 'off', false),
    pg_catalog.set_config('jit', 'off', false)
