-- From here on, and to the end of this transaction, names mean what the server itself has made. Keeps the search_path
-- that was set, for usual_names.
SELECT
    pg_catalog.set_config('celery_pgbg.search_path', pg_catalog.current_setting('search_path'), true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
