-- Let reusable background workers end that have nothing to do: each does so as soon as it misses its row. Any session.
DELETE FROM celery_pgbg.bgworker
WHERE role = quote_ident(CURRENT_USER)::regrole AND pool = ANY(%(pools)s::text[]) AND NOT is_busy AND turn > 0
