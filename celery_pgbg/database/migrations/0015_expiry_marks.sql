-- How far deleting what is too old has come, so that a million records that are kept are not judged each time anew.

CREATE TABLE celery_pgbg.expiry_mark (
    -- the one that deleted, who judged what it may see
    role regrole PRIMARY KEY DEFAULT quote_ident(CURRENT_USER)::regrole,
    -- what ended, or was launched, before that was deleted, or is kept for what a stored result, a chord or a process needs
    judged_up_to timestamptz NOT NULL,
    -- when all of it was judged, from the oldest on
    all_judged_at timestamptz NOT NULL
);

COMMENT ON TABLE celery_pgbg.expiry_mark IS
    'How far each role has come with deleting old outcomes and records.';

ALTER TABLE celery_pgbg.expiry_mark ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON celery_pgbg.expiry_mark
USING (role = quote_ident(CURRENT_USER)::regrole);
