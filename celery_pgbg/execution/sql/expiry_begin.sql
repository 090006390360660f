-- Begin to delete what is older than the limit, in milliseconds. Returns the moment of that limit, and where judging begins
-- (once a day at the oldest record, else where the last run ended); if asked, also the numbers of outcomes and records of
-- launches to judge, of older outcomes kept from earlier runs, and of younger outcomes. Deletes at once
-- old rows of reusable background workers (one that still runs then ends after its task), of orders, walks and splits.
-- Any session.
WITH old_bgworker AS (
    DELETE FROM celery_pgbg.bgworker
    WHERE changed_at < (statement_timestamp() - (%(age_ms)s::bigint * interval '1 millisecond'))
), old_work AS (
    DELETE FROM celery_pgbg.work
    WHERE placed_at < (statement_timestamp() - (%(age_ms)s::bigint * interval '1 millisecond'))
), old_walk AS (
    -- an unfinished walk may be continued for a month
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
    -- begin_at NULL: from the oldest on
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
