-- Launch a statement that stands alone, on a launcher session that has no other handle. It inherits the settings, which are
-- set before in the same statement: limits of idle time or of transactions among them would end the launching session.
-- Its queue, in bytes, has room for the messages of VERBOSE about many tables.
SELECT launched.pid, launched.cookie
FROM (
    SELECT 1048576 + (0 * count(set_config(key, value, true))::integer)
    FROM jsonb_each_text(%(settings)s::jsonb)
) AS settings (queue_bytes)
CROSS JOIN LATERAL {launch_function}(%(statement)s::text, settings.queue_bytes) AS launched
