-- Make this session a consumer: it holds a lock as long as it lives, which shows others that what it has taken is its.
--
-- The end of such a session is noticed soon, also where its whole host is lost. Its commits need not wait for the disk: a
-- server that crashes loses the session too, and sends again what that had taken.
-- Earlier is the consumer of a session that this process has given up. The server may not know that yet, so it is ended:
-- it is the one that holds its lock.
-- With a lease, for sessions that are ours for one transaction only, there is no lock, and the lease must be renewed.
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
            -- A stranger has it, who can know the next numbers of the sequence, but not this one.
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
