-- The newest migration applied; an UndefinedTable error where nothing is installed.
SELECT pg_catalog.max(version) AS version FROM celery_pgbg.migration
