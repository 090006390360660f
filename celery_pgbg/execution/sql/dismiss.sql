-- End the idle reusable background workers: each ends as soon as its row is missing. Any session.
DELETE FROM celery_pgbg.bgworker
WHERE role = quote_ident(CURRENT_USER)::regrole AND pool = ANY(%(pools)s::text[]) AND NOT is_busy AND turn > 0
