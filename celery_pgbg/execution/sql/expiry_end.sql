-- Note that everything before a moment is judged, except the last ten minutes, into which a transaction may still write.
-- The next run begins there. Any session.
INSERT INTO celery_pgbg.expiry_mark AS mark (role, judged_up_to, all_judged_at)
SELECT
    quote_ident(CURRENT_USER)::regrole,
    least(%(before)s::timestamptz, statement_timestamp() - interval '10 minutes'),
    statement_timestamp()
ON CONFLICT (role) DO UPDATE SET
    judged_up_to = greatest(mark.judged_up_to, excluded.judged_up_to),
    all_judged_at = CASE
        WHEN %(begin_at)s::timestamptz IS NULL THEN excluded.all_judged_at
        ELSE mark.all_judged_at
    END
