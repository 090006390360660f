-- The roles that may use the schema, and the role that each of them acts for; each row belongs to a role.

CREATE TABLE celery_pgbg.member (
    role regrole PRIMARY KEY,
    -- the role that its rows belong to: itself, or one with which it shares
    owner regrole NOT NULL
);

COMMENT ON TABLE celery_pgbg.member IS
    'The roles that may launch SQL tasks and use results, and the role whose rows each of them reads and writes.';

-- The complete function is in functions/owner.sql.
CREATE FUNCTION celery_pgbg.owner() RETURNS regrole
LANGUAGE sql STABLE
RETURN quote_ident(CURRENT_USER)::regrole;

ALTER TABLE celery_pgbg.execution
    ADD COLUMN owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    DROP CONSTRAINT execution_pkey,
    ADD PRIMARY KEY (task_id, attempt, owner);
ALTER TABLE celery_pgbg.outcome
    ADD COLUMN owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    DROP CONSTRAINT outcome_pkey,
    ADD PRIMARY KEY (task_id, attempt, owner);
ALTER TABLE celery_pgbg.result
    ADD COLUMN owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    DROP CONSTRAINT result_pkey,
    ADD PRIMARY KEY (task_id, owner);
ALTER TABLE celery_pgbg.result_group
    ADD COLUMN owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    DROP CONSTRAINT result_group_pkey,
    ADD PRIMARY KEY (group_id, owner);
ALTER TABLE celery_pgbg.chord
    ADD COLUMN owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    DROP CONSTRAINT chord_pkey,
    ADD PRIMARY KEY (group_id, owner);
ALTER TABLE celery_pgbg.chord_part
    ADD COLUMN owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    DROP CONSTRAINT chord_part_pkey,
    ADD PRIMARY KEY (group_id, task_id, group_index, owner);
ALTER TABLE celery_pgbg.bgworker
    -- the role that wrote the row; only a background worker of this role executes its statement
    ADD COLUMN role regrole NOT NULL DEFAULT quote_ident(CURRENT_USER)::regrole,
    ADD COLUMN owner regrole NOT NULL DEFAULT celery_pgbg.owner(),
    DROP CONSTRAINT bgworker_pkey,
    ADD PRIMARY KEY (id, role);

ALTER TABLE celery_pgbg.execution ENABLE ROW LEVEL SECURITY;
ALTER TABLE celery_pgbg.outcome ENABLE ROW LEVEL SECURITY;
ALTER TABLE celery_pgbg.result ENABLE ROW LEVEL SECURITY;
ALTER TABLE celery_pgbg.result_group ENABLE ROW LEVEL SECURITY;
ALTER TABLE celery_pgbg.chord ENABLE ROW LEVEL SECURITY;
ALTER TABLE celery_pgbg.chord_part ENABLE ROW LEVEL SECURITY;
ALTER TABLE celery_pgbg.bgworker ENABLE ROW LEVEL SECURITY;

-- For a role that shares with no other role, the first half decides, without reading the members.
CREATE POLICY own_rows ON celery_pgbg.execution
USING (owner = quote_ident(CURRENT_USER)::regrole OR owner = (SELECT celery_pgbg.owner()));
CREATE POLICY own_rows ON celery_pgbg.outcome
USING (owner = quote_ident(CURRENT_USER)::regrole OR owner = (SELECT celery_pgbg.owner()));
CREATE POLICY own_rows ON celery_pgbg.result
USING (owner = quote_ident(CURRENT_USER)::regrole OR owner = (SELECT celery_pgbg.owner()));
CREATE POLICY own_rows ON celery_pgbg.result_group
USING (owner = quote_ident(CURRENT_USER)::regrole OR owner = (SELECT celery_pgbg.owner()));
CREATE POLICY own_rows ON celery_pgbg.chord
USING (owner = quote_ident(CURRENT_USER)::regrole OR owner = (SELECT celery_pgbg.owner()));
CREATE POLICY own_rows ON celery_pgbg.chord_part
USING (owner = quote_ident(CURRENT_USER)::regrole OR owner = (SELECT celery_pgbg.owner()));
CREATE POLICY own_rows ON celery_pgbg.bgworker
USING (role = quote_ident(CURRENT_USER)::regrole);
