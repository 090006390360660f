-- What is older than the limit, in milliseconds: the moment, from where on it must be judged (once a day from the oldest
-- on, else where the last one ended), and, if asked, how many outcomes and records of launches that are, how many
-- outcomes are kept from before, and how many are younger. Deletes what reusable workers left that did not end by
-- themselves; one that still runs ends after its task; orders that nobody waits for; and how far walks came. Any session.
WITH old_bgworker AS (
    DELETE FROM celery_pgbg.bgworker
    WHERE changed_at < (statement_timestamp() - (%(age_ms)s::bigint * interval '1 millisecond'))
), old_work AS (
    DELETE FROM celery_pgbg.work
    WHERE placed_at < (statement_timestamp() - (%(age_ms)s::bigint * interval '1 millisecond'))
), old_walk AS (
    -- one that is not done may be gone on with for a month
    DELETE FROM celery_pgbg.walk
    WHERE changed_at < (statement_timestamp() - (%(age_ms)s::bigint * interval '1 millisecond'))
        AND (is_done OR changed_at < (statement_timestamp() - interval '30 days'))
), old_split AS (
    DELETE FROM celery_pgbg.walk_split
    WHERE made_at < ((statement_timestamp() - (%(age_ms)s::bigint * interval '1 millisecond')) - interval '30 days')
), span AS MATERIALIZED (
    SELECT
        statement_timestamp() - (%(age_ms)s::bigint * interval '1 millisecond') AS before,
        (
            SELECT mark.judged_up_to FROM celery_pgbg.expiry_mark AS mark
            WHERE mark.role = quote_ident(CURRENT_USER)::regrole
                AND mark.all_judged_at > (statement_timestamp() - interval '1 day')
        ) AS begin_at
)
SELECT
    -- NULL: from the oldest on
    span.before, span.begin_at,
    CASE
        WHEN %(counted)s::boolean THEN (
            SELECT count(*) FROM celery_pgbg.outcome
            WHERE finished_at < span.before AND finished_at >= coalesce(span.begin_at, '-infinity')
        )
        ELSE 0
    END AS outcomes,
    CASE
        WHEN %(counted)s::boolean THEN (
            SELECT count(*) FROM celery_pgbg.execution
            WHERE launched_at < span.before AND launched_at >= coalesce(span.begin_at, '-infinity')
        )
        ELSE 0
    END AS executions,
    CASE
        WHEN %(counted)s::boolean THEN (
            SELECT count(*) FROM celery_pgbg.outcome WHERE finished_at < span.before AND finished_at < span.begin_at
        )
        ELSE 0
    END AS earlier,
    CASE
        WHEN %(counted)s::boolean THEN (SELECT count(*) FROM celery_pgbg.outcome WHERE finished_at >= span.before)
        ELSE 0
    END AS younger
FROM span
