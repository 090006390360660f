-- Let a role launch SQL tasks and keep their outcomes.
GRANT USAGE ON SCHEMA celery_pgbg TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA celery_pgbg TO {role};
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA celery_pgbg TO {role};
GRANT pgbackground_role TO {role};
