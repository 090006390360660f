-- The role whose rows this session reads and writes: its current role, or the role that it shares with.
CREATE OR REPLACE FUNCTION celery_pgbg.owner() RETURNS regrole
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    own CONSTANT pg_catalog.regrole := pg_catalog.quote_ident(CURRENT_USER);
BEGIN
    RETURN coalesce(
        (SELECT member.owner FROM celery_pgbg.member WHERE member.role OPERATOR(pg_catalog.=) own), own
    );
END;
$$;
