-- Make this session a consumer. As long as the session lives it holds a lock, which shows other consumers that the messages
-- it has taken are still its own.
--
-- The server notices the end of such a session soon, even if its whole host is lost. The session's commits need not wait
-- for the disk: a crash of the server ends the session too, and its messages are delivered again.
-- ``earlier``: the consumer of a session that this process has given up. The server may still keep that session, so it is
-- ended: it is the session that holds the consumer's lock.
-- With a lease, for sessions that are ours for one transaction only, there is no lock, and the consumer renews the lease.
CREATE OR REPLACE FUNCTION celery_pgbg.register_consumer(name text, lease_ms bigint, earlier bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    new_id bigint := nextval('celery_pgbg.consumer_id_seq');
BEGIN
    IF register_consumer.lease_ms IS NULL THEN
        PERFORM
            set_config('synchronous_commit', 'off', false),
            set_config('statement_timeout', '0', false),
            set_config('lock_timeout', '0', false),
            set_config('idle_session_timeout', '0', false),
            set_config('default_transaction_isolation', 'read committed', false),
            set_config('tcp_keepalives_idle', '5', false),
            set_config('tcp_keepalives_interval', '3', false),
            set_config('tcp_keepalives_count', '3', false),
            set_config('tcp_user_timeout', '15000', false);
    END IF;
    IF register_consumer.lease_ms IS NULL THEN
        WHILE NOT pg_try_advisory_lock(celery_pgbg.lock_key('consumer', new_id::text)) LOOP
            -- A stranger holds it: strangers can guess the next numbers of the sequence, but not this one.
            new_id := abs(uuid_hash_extended(gen_random_uuid(), 0) / 2);
        END LOOP;
    END IF;
    PERFORM pg_terminate_backend(l.pid)
    FROM pg_locks AS l
    JOIN pg_stat_get_activity(l.pid) AS process ON process.usesysid = quote_ident(SESSION_USER)::regrole::oid
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.pid <> pg_backend_pid()
        AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
        AND (l.classid::bigint << 32) | l.objid::bigint = celery_pgbg.lock_key('consumer', earlier::text);
    INSERT INTO celery_pgbg.consumer (id, name, leased_until) OVERRIDING SYSTEM VALUE
    VALUES (
        new_id, register_consumer.name,
        clock_timestamp() + interval '1 millisecond' * register_consumer.lease_ms
    );
    RETURN new_id;
END;
$$;
