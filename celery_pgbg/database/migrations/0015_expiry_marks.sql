-- How far the deletion of old records has come, so that a million kept records are not judged again each time.

CREATE TABLE celery_pgbg.expiry_mark (
    -- the role that deleted, and judged the records that it may see
    role regrole PRIMARY KEY DEFAULT quote_ident(CURRENT_USER)::regrole,
    -- records that ended, or were launched, before this are deleted, or kept for a stored result, a chord or a process
    judged_up_to timestamptz NOT NULL,
    -- when all records were judged, from the oldest on
    all_judged_at timestamptz NOT NULL
);

COMMENT ON TABLE celery_pgbg.expiry_mark IS
    'How far each role has come with deleting old outcomes and records.';

ALTER TABLE celery_pgbg.expiry_mark ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON celery_pgbg.expiry_mark
USING (role = quote_ident(CURRENT_USER)::regrole);
