-- What came with 1.9: labels, and what a handle says of its error and its end. The report of the end has no times.
CREATE TYPE pg_background_error AS (sqlstate text, message text, detail text, hint text, context text);

CREATE TYPE pg_background_result_info AS (row_count bigint, command_tag text, completed boolean, has_error boolean);

CREATE OR REPLACE FUNCTION pg_background_list_v2() RETURNS SETOF record LANGUAGE sql
AS $$ SELECT * FROM newer.handles() $$;

CREATE FUNCTION pg_background_launch_v2(sql text, queue_size integer, label text) RETURNS pg_background_handle
LANGUAGE C AS '$libdir/pg_background', 'pg_background_launch';

CREATE FUNCTION pg_background_submit_v2(sql text, queue_size integer, label text) RETURNS pg_background_handle
LANGUAGE C AS '$libdir/pg_background', 'pg_background_submit';

CREATE FUNCTION pg_background_error_info_v2(pid integer, cookie bigint) RETURNS pg_background_error
LANGUAGE sql STRICT
AS $$
    SELECT (sqlstate, message, detail, hint, context)::pg_background_error
    FROM newer.pg_background_error_info(pid, cookie)
    WHERE sqlstate IS NOT NULL
$$;

CREATE FUNCTION pg_background_result_info_v2(pid integer, cookie bigint) RETURNS pg_background_result_info
LANGUAGE sql STRICT
AS $$
    SELECT (row_count, command_tag, completed, has_error)::pg_background_result_info
    FROM newer.pg_background_result_info(pid, cookie)
$$;

CREATE FUNCTION pg_background_detach_all_v2() RETURNS integer
LANGUAGE plpgsql
AS $$ BEGIN PERFORM newer.crash('a detach of the last handle of this session'); END $$;

CREATE FUNCTION pg_background_cancel_all_v2() RETURNS integer
LANGUAGE plpgsql
AS $$ BEGIN PERFORM newer.crash('a cancel of background workers that may not have begun their SQL'); END $$;
