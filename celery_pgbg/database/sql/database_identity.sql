-- Which cluster, and which of its databases.
SELECT
    (SELECT system_identifier FROM pg_catalog.pg_control_system()),
    (SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
