-- How far the slowest standby is behind with what it shows to readers, in seconds; 0 where there is none. As the
-- owner, since others may not see it. A standby that answers no more is behind by its silence.
CREATE OR REPLACE FUNCTION celery_pgbg.replication_lag() RETURNS double precision
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN 0;
    END IF;
    RETURN coalesce((
        SELECT max(extract(epoch FROM greatest(
            CASE WHEN r.replay_lsn < pg_current_wal_flush_lsn() THEN r.replay_lag END,
            CASE WHEN r.replay_lsn < pg_current_wal_flush_lsn() THEN clock_timestamp() - r.reply_time END
        )))
        FROM pg_stat_replication AS r
        WHERE r.state IN ('streaming', 'catchup') AND r.replay_lsn IS NOT NULL
    ), 0);
END;
$$;
