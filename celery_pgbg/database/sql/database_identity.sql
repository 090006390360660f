-- The identity of the cluster, and of the database in it.
SELECT
    (SELECT system_identifier FROM pg_catalog.pg_control_system()),
    (SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
