-- The replay lag of the slowest standby, in seconds; 0 without a standby. Runs with the owner's rights, because other
-- roles may not see the lag. The silence of a standby counts as its lag.
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
