-- Executions that run, the oldest first; then those that ended within the given milliseconds and, if a moment is given,
-- before it, the latest first, up to a limit. Reads no more records than it shows, by index. Any session.
WITH live AS MATERIALIZED (
    SELECT task_id, attempt, owner, pid, state FROM celery_pgbg.live_attempts()
), span AS MATERIALIZED (
    SELECT
        statement_timestamp() - (%(ended_ms)s::bigint * interval '1 millisecond') AS since,
        coalesce(%(before)s::timestamptz, 'infinity') AS before
), ended AS MATERIALIZED (
    SELECT task_id, attempt, owner, finished_at FROM celery_pgbg.outcome
    WHERE finished_at > (SELECT since FROM span) AND finished_at < (SELECT before FROM span)
    ORDER BY finished_at DESC
    LIMIT %(ended_limit)s::bigint
), edge AS MATERIALIZED (
    -- executions launched before the last one shown are not shown either, so they need not be read
    SELECT
        CASE
            WHEN (SELECT count(*) FROM ended) < %(ended_limit)s::bigint THEN span.since
            ELSE greatest(span.since, (SELECT min(finished_at) FROM ended))
        END AS since,
        span.before
    FROM span
), chosen AS (
    SELECT task_id, attempt, owner FROM live
    UNION
    SELECT task_id, attempt, owner FROM ended
    UNION
    (
        SELECT recent.task_id, recent.attempt, recent.owner
        FROM (
            -- first all of that time, by index, then the few of them without an outcome
            SELECT task_id, attempt, owner, launched_at FROM celery_pgbg.execution
            WHERE launched_at > (SELECT since FROM edge) AND launched_at < (SELECT before FROM edge)
            OFFSET 0
        ) AS recent
        LEFT JOIN LATERAL (
            SELECT true AS is_there FROM celery_pgbg.outcome
            WHERE outcome.task_id = recent.task_id AND outcome.attempt = recent.attempt AND outcome.owner = recent.owner
            OFFSET 0
        ) AS outcome ON true
        WHERE outcome.is_there IS NULL
        ORDER BY recent.launched_at DESC
        LIMIT %(ended_limit)s::bigint
    )
)
SELECT
    execution.task_id, execution.attempt, execution.task_name, execution.atomic,
    -- a placed order has no PID before it is taken
    CASE WHEN execution.pid = 0 THEN coalesce(live.pid, outcome.pid, 0) ELSE execution.pid END AS pid, execution.cookie,
    execution.nodename, execution.launched_at, execution.launches,
    CASE
        WHEN outcome.succeeded AND execution.progress_percent IS NOT NULL THEN 100
        ELSE execution.progress_percent
    END AS progress_percent,
    execution.progress_message,
    CASE
        WHEN outcome.succeeded THEN 'finished'
        WHEN outcome.settled_as = 'revoked' THEN 'revoked'
        WHEN outcome.task_id IS NOT NULL THEN 'failed'
        WHEN live.state = ANY (ARRAY['running', 'unknown', 'waiting']) THEN live.state
        WHEN live.state IS NOT NULL THEN 'starting'
        ELSE 'gone'
    END AS state,
    -- unknown in the state gone, because nothing records that end
    CASE
        WHEN outcome.task_id IS NOT NULL OR live.state IS NOT NULL
        THEN extract(epoch FROM coalesce(outcome.finished_at, clock_timestamp()) - execution.launched_at)::float8
    END AS seconds,
    outcome.finished_at,
    EXISTS (
        SELECT FROM celery_pgbg.walk AS walk
        WHERE walk.task_id = execution.task_id AND walk.attempt = execution.attempt
            AND walk.owner = execution.owner AND walk.is_paused
    ) AS is_paused,
    concat_ws(': ', activity.wait_event_type, activity.wait_event) AS waits_for,
    coalesce(work.statement, bgworker.statement) AS statement, activity.query
FROM chosen
JOIN celery_pgbg.execution AS execution
    ON execution.task_id = chosen.task_id AND execution.attempt = chosen.attempt AND execution.owner = chosen.owner
LEFT JOIN celery_pgbg.outcome AS outcome
    ON outcome.task_id = chosen.task_id AND outcome.attempt = chosen.attempt AND outcome.owner = chosen.owner
LEFT JOIN live
    ON live.task_id = chosen.task_id AND live.attempt = chosen.attempt AND live.owner = chosen.owner
LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = live.pid AND live.state = 'running'
LEFT JOIN celery_pgbg.bgworker AS bgworker
    ON bgworker.task_id = execution.task_id AND bgworker.attempt = execution.attempt
    AND bgworker.owner = execution.owner AND live.pid = bgworker.pid
LEFT JOIN celery_pgbg.work AS work
    ON work.task_id = execution.task_id AND work.attempt = execution.attempt AND work.owner = execution.owner
WHERE (outcome.task_id IS NULL AND live.state IS NOT NULL) OR (
    coalesce(outcome.finished_at, execution.launched_at) > (SELECT since FROM span)
    AND coalesce(outcome.finished_at, execution.launched_at) < (SELECT before FROM span)
)
ORDER BY
    outcome.task_id IS NOT NULL OR live.state IS NULL,
    CASE WHEN outcome.task_id IS NULL AND live.state IS NOT NULL THEN execution.launched_at END,
    coalesce(outcome.finished_at, execution.launched_at) DESC
