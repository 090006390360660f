-- Launch a harmless background worker whose handle this session keeps: it waits for the end of this transaction, so
-- that its PID is right, and ends.
SELECT pid, cookie FROM {launch_function}(
    format(
        $query$DO $block$BEGIN
            WHILE pg_catalog.pg_xact_status(%L) OPERATOR(pg_catalog.=) 'in progress' LOOP
                PERFORM pg_catalog.pg_sleep(0.002);
            END LOOP;
        END$block$$query$,
        pg_current_xact_id()
    ),
    65536
)
