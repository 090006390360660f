-- The error of a stopped worker of this session without ending its handle; NULLs where it succeeded.
SELECT
    error.sqlstate, error.message, error.detail AS message_detail, error.hint AS message_hint,
    error.context, error.schema_name, error.table_name, error.column_name, error.constraint_name
FROM {error_info_function}(%(pid)s::integer, %(cookie)s::bigint) AS error
