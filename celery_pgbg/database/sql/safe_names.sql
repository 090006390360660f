-- From here to the end of this transaction, names mean the server's own objects. Keeps the present search_path for
-- usual_names.
SELECT
    pg_catalog.set_config('celery_pgbg.search_path', pg_catalog.current_setting('search_path'), true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
