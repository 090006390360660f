-- Record the end of a chord's member, and decide whether the caller sends the callback. Its own transaction, on any
-- session; waits for other members of the chord that are just ending.
SELECT state
FROM celery_pgbg.result_chord_part(
    group_id => %(group_id)s::text, task_id => %(task_id)s::text, group_index => %(group_index)s::integer,
    status => %(status)s::text, content_type => %(content_type)s::text,
    content_encoding => %(content_encoding)s::text, value => %(value)s::bytea,
    outcome_attempt => %(outcome_attempt)s::integer, task_name => %(task_name)s::text,
    claim => %(claim)s::text, lease_ms => %(lease_ms)s::bigint
)
