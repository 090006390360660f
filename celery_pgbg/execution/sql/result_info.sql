-- How the statement of a stopped background worker of this session ended, without ending its handle. After an end by a
-- signal (FATAL) it counts as completed and without an error, but has no time of its end.
SELECT info.command_tag, info.row_count, info.finished_at IS NOT NULL AND NOT info.has_error AS succeeded
FROM {result_info_function}(%(pid)s::integer, %(cookie)s::bigint) AS info
