-- From here to the end of this transaction, names mean the server's own objects, and the server writes them without
-- unnecessary quotes. Keeps the present settings for usual_names.
SELECT
    pg_catalog.set_config('celery_pgbg.search_path', pg_catalog.current_setting('search_path'), true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
    pg_catalog.set_config(
        'celery_pgbg.quote_all_identifiers', pg_catalog.current_setting('quote_all_identifiers'), true
    ),
    pg_catalog.set_config('quote_all_identifiers', 'off', true);
