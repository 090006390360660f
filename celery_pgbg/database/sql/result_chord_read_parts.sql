-- The members of a chord in the header's order, or in that of their ends. On any session.
SELECT
    part.task_id, part.status, part.content_type, part.content_encoding, part.value, part.outcome_attempt,
    outcome.attempt, outcome.finished_at, outcome.returns, outcome.row_count, outcome.command_tag,
    outcome.column_names, outcome.column_types, outcome.row_texts
FROM celery_pgbg.chord_part AS part
LEFT JOIN celery_pgbg.outcome AS outcome
    ON outcome.task_id = part.task_id AND outcome.attempt = part.outcome_attempt AND outcome.owner = part.owner
WHERE part.owner = (SELECT celery_pgbg.owner()) AND part.group_id = %(group_id)s::text
ORDER BY CASE WHEN %(ordered)s::boolean THEN part.group_index END, part.arrival
