-- Undo safe_names.
SELECT
    pg_catalog.set_config('search_path', pg_catalog.current_setting('celery_pgbg.search_path'), true),
    pg_catalog.set_config(
        'quote_all_identifiers', pg_catalog.current_setting('celery_pgbg.quote_all_identifiers'), true
    );
