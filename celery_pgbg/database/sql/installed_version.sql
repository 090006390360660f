-- The newest migration applied; an UndefinedTable error where nothing is installed.
SELECT max(version) AS version FROM celery_pgbg.migration
