-- Which of some attempts run; one launched a moment ago counts too, unless its process was seen before. Any session.
SELECT live.task_id, live.attempt
FROM celery_pgbg.live_attempts() AS live
JOIN ROWS FROM (unnest(%(task_ids)s::text[]), unnest(%(attempts)s::integer[])) AS wanted (task_id, attempt)
    ON wanted.task_id = live.task_id AND wanted.attempt = live.attempt
-- Not by "=" alone: a plan made while the tables are empty would look for the owner in an index that has all attempts.
WHERE (live.owner = (SELECT celery_pgbg.owner())) IS TRUE AND (live.state <> 'launched' OR NOT %(was_seen)s::boolean)
