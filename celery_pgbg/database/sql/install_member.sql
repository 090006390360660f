-- Let a role launch SQL tasks and keep results, for itself or, where {owner} is not NULL, as the role it shares with.
INSERT INTO celery_pgbg.member (role, owner)
VALUES (quote_ident({role})::regrole, quote_ident(coalesce({owner}, {role}))::regrole)
ON CONFLICT (role) DO UPDATE SET owner = excluded.owner WHERE {owner} IS NOT NULL;
