-- What 1.6 to 1.10 have in common: the old API, which knows a bare PID, and the one of handles. In these lines a cancel
-- before the background worker runs its SQL, and the end of a session's last handle, crash the server: here they raise.
CREATE TYPE pg_background_handle AS (pid integer, cookie bigint);

CREATE FUNCTION pg_background_launch_v2(sql text, queue_size integer DEFAULT {queue_size}) RETURNS pg_background_handle
LANGUAGE plpgsql STRICT
AS $$
DECLARE
    launched newer.pg_background_handle;
BEGIN
    IF current_setting('shape.has_launched', true) = 'yes' AND NOT EXISTS (SELECT FROM newer.handles()) THEN
        PERFORM newer.crash('the last handle of this session has ended');
    END IF;
    launched := newer.pg_background_launch(sql, queue_size);
    -- for the whole session, also where the launch rolls back
    EXECUTE 'SET SESSION shape.has_launched = yes';
    RETURN (launched.pid, launched.cookie)::pg_background_handle;
END $$;

CREATE FUNCTION pg_background_submit_v2(sql text, queue_size integer DEFAULT {queue_size}) RETURNS pg_background_handle
LANGUAGE C STRICT AS '$libdir/pg_background', 'pg_background_submit';

CREATE FUNCTION pg_background_result_v2(pid integer, cookie bigint) RETURNS SETOF record
LANGUAGE C STRICT AS '$libdir/pg_background', 'pg_background_result';

CREATE FUNCTION pg_background_detach_v2(pid integer, cookie bigint) RETURNS void
LANGUAGE plpgsql STRICT
AS $$ BEGIN
    IF NOT EXISTS (SELECT FROM newer.handles() AS other WHERE other.pid <> pg_background_detach_v2.pid) THEN
        PERFORM newer.crash('a detach of the last handle of this session');
    END IF;
    PERFORM newer.pg_background_detach(pid, cookie);
END $$;

CREATE FUNCTION pg_background_cancel_v2(pid integer, cookie bigint) RETURNS void
LANGUAGE plpgsql STRICT
AS $$ BEGIN
    IF EXISTS (
        SELECT FROM newer.handles() AS handle
        WHERE handle.pid = pg_background_cancel_v2.pid AND handle.cookie = pg_background_cancel_v2.cookie
            AND handle.state = 'running' AND handle.launched_at > clock_timestamp() - interval '1 second'
    ) AND NOT EXISTS (
        SELECT FROM pg_locks AS held
        WHERE held.pid = pg_background_cancel_v2.pid AND held.locktype = 'advisory' AND held.granted
    ) AND NOT EXISTS (
        -- has begun, and perhaps just ended
        SELECT FROM pg_stat_activity AS process
        WHERE process.pid = pg_background_cancel_v2.pid AND process.query_start IS NOT NULL
    ) THEN
        PERFORM newer.crash('a cancel of a background worker that has not begun its SQL');
    END IF;
    PERFORM newer.pg_background_cancel(pid, cookie, 0);
END $$;

CREATE FUNCTION pg_background_cancel_v2_grace(pid integer, cookie bigint, grace_ms integer) RETURNS void
LANGUAGE plpgsql STRICT
AS $$ BEGIN PERFORM newer.crash('a cancel with a grace'); END $$;

CREATE FUNCTION pg_background_wait_v2(pid integer, cookie bigint) RETURNS void
LANGUAGE plpgsql STRICT
AS $$ BEGIN PERFORM newer.pg_background_wait(pid, cookie, 0); END $$;

CREATE FUNCTION pg_background_wait_v2_timeout(pid integer, cookie bigint, timeout_ms integer) RETURNS boolean
LANGUAGE plpgsql STRICT
AS $$ BEGIN RETURN newer.pg_background_wait(pid, cookie, timeout_ms); END $$;

CREATE FUNCTION pg_background_list_v2() RETURNS SETOF record LANGUAGE sql
AS $$
    SELECT pid, cookie, launched_at, user_id, queue_size, state, sql_preview, last_error, consumed FROM newer.handles()
$$;

CREATE FUNCTION pg_background_launch(sql text, queue_size integer DEFAULT {queue_size}) RETURNS integer
LANGUAGE plpgsql STRICT
AS $$ BEGIN RETURN (newer.pg_background_launch(sql, queue_size)).pid; END $$;

CREATE FUNCTION pg_background_result(pid integer) RETURNS SETOF record
LANGUAGE plpgsql STRICT
AS $$ BEGIN RAISE 'the old API was called'; END $$;

CREATE FUNCTION pg_background_detach(pid integer) RETURNS void
LANGUAGE plpgsql STRICT
AS $$ BEGIN RAISE 'the old API was called'; END $$;

CREATE FUNCTION grant_pg_background_privileges(role_name text, print_commands boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql AS $$ BEGIN RETURN newer.pg_background_grant_privileges(role_name, print_commands); END $$;

CREATE FUNCTION revoke_pg_background_privileges(role_name text, print_commands boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql AS $$ BEGIN RETURN newer.pg_background_revoke_privileges(role_name, print_commands); END $$;

CREATE FUNCTION pg_background_drop_executor_role() RETURNS void
LANGUAGE plpgsql AS $$ BEGIN RAISE 'other databases need the role'; END $$;
