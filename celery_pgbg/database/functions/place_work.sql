-- Place orders for reusable background workers, except orders whose attempt has ended or runs already. Runs on a
-- launcher's session, as its own transaction.
--
-- State of each: finished (an outcome exists), attached (a background worker of an earlier delivery runs it; its PID),
-- placed (it waits to be taken, perhaps since an earlier delivery). Also returns the recorded number of background workers
-- that may take the order.
CREATE OR REPLACE FUNCTION celery_pgbg.place_work(
    pools text[],
    task_ids text[],
    attempts integer[],
    task_names text[],
    application_names text[],
    nodenames text[],
    preambles text[],
    statements text[],
    shapes text[],
    role_names text[],
    limits bigint[],
    notifies boolean[],
    message_ids bigint[],
    task_metas jsonb[]
) RETURNS TABLE (number integer, state text, pid integer, cookie bigint, workers integer)
LANGUAGE plpgsql
-- as plan_once.sql says, for this call only
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    own CONSTANT pg_catalog.regrole := celery_pgbg.owner();
    own_role CONSTANT pg_catalog.regrole := pg_catalog.quote_ident(CURRENT_USER);
    has_turns boolean;
    others integer[];
    n integer;
    earlier pg_catalog.record;
    states pg_catalog.text[] := pg_catalog.array_fill('placed'::pg_catalog.text, ARRAY[pg_catalog.cardinality(task_ids)]);
    pids integer[] := pg_catalog.array_fill(NULL::integer, ARRAY[pg_catalog.cardinality(task_ids)]);
    cookies bigint[] := pg_catalog.array_fill(NULL::bigint, ARRAY[pg_catalog.cardinality(task_ids)]);
BEGIN
    -- sorted, so that two such calls never wait for each other; see earlier_delivery
    SELECT pg_catalog.bool_and(celery_pgbg.await_lock(lock.key, own)) INTO has_turns
    FROM (
        SELECT celery_pgbg.attempt_key('delivery', asked.task_id, asked.attempt, own) AS key
        FROM ROWS FROM (pg_catalog.unnest(task_ids), pg_catalog.unnest(attempts)) AS asked (task_id, attempt)
        ORDER BY 1
    ) AS lock;

    WITH asked AS MATERIALIZED (
        SELECT *
        FROM ROWS FROM (
            pg_catalog.unnest(pools), pg_catalog.unnest(task_ids), pg_catalog.unnest(attempts),
            pg_catalog.unnest(task_names), pg_catalog.unnest(application_names), pg_catalog.unnest(nodenames),
            pg_catalog.unnest(preambles), pg_catalog.unnest(statements), pg_catalog.unnest(shapes),
            pg_catalog.unnest(role_names), pg_catalog.unnest(limits), pg_catalog.unnest(notifies),
            pg_catalog.unnest(message_ids), pg_catalog.unnest(task_metas)
        ) WITH ORDINALITY AS ask (
            pool, task_id, attempt, task_name, shown_as, nodename, preamble, statement, shape, role_name,
            max_result_bytes, notify, message_id, task_meta, place
        )
    ), first_ones AS (
        INSERT INTO celery_pgbg.execution
            (task_id, attempt, owner, task_name, atomic, pid, cookie, application_name, nodename)
        SELECT ask.task_id, ask.attempt, own, ask.task_name, true, 0, 0, ask.shown_as, ask.nodename
        FROM asked AS ask
        -- one by one, as read_outcomes says
        WHERE (
            SELECT true FROM celery_pgbg.outcome AS o
            WHERE o.task_id OPERATOR(pg_catalog.=) ask.task_id AND o.attempt OPERATOR(pg_catalog.=) ask.attempt
                AND o.owner OPERATOR(pg_catalog.=) own
        ) IS NULL
        ON CONFLICT (task_id, attempt, owner) DO NOTHING
        RETURNING task_id, attempt
    ), placed AS (
        INSERT INTO celery_pgbg.work (
            owner, pool, task_id, attempt, shown_as, preamble, statement, returns, role_name,
            max_result_bytes, notify, message_id, task_meta, attempt_key, is_first
        )
        SELECT
            own, ask.pool, ask.task_id, ask.attempt, ask.shown_as, ask.preamble, ask.statement, ask.shape,
            ask.role_name, ask.max_result_bytes, ask.notify, ask.message_id, ask.task_meta,
            celery_pgbg.attempt_key('attempt', ask.task_id, ask.attempt, own), has_turns
        FROM asked AS ask
        JOIN first_ones AS f
            ON f.task_id OPERATOR(pg_catalog.=) ask.task_id AND f.attempt OPERATOR(pg_catalog.=) ask.attempt
        ORDER BY ask.place
        ON CONFLICT (task_id, attempt, owner) DO NOTHING
    )
    SELECT pg_catalog.array_agg(ask.place) INTO others
    FROM asked AS ask
    WHERE NOT EXISTS (
        SELECT FROM first_ones AS f
        WHERE f.task_id OPERATOR(pg_catalog.=) ask.task_id AND f.attempt OPERATOR(pg_catalog.=) ask.attempt
    );

    IF others IS NULL THEN
        -- as record_execution says
        PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
    ELSE
        FOREACH n IN ARRAY others LOOP
            -- a waiting order of our role is ours from now on
            UPDATE celery_pgbg.work AS w SET pool = pools[n]
            WHERE w.task_id OPERATOR(pg_catalog.=) task_ids[n] AND w.attempt OPERATOR(pg_catalog.=) attempts[n]
                AND w.owner OPERATOR(pg_catalog.=) own AND w.role OPERATOR(pg_catalog.=) own_role;
            CONTINUE WHEN FOUND;
            SELECT e.* INTO earlier FROM celery_pgbg.earlier_delivery(task_ids[n], attempts[n]) AS e;
            IF earlier.state IS NOT NULL THEN
                states[n] := earlier.state;
                pids[n] := earlier.pid;
                cookies[n] := earlier.cookie;
                CONTINUE;
            END IF;
            INSERT INTO celery_pgbg.work (
                owner, pool, task_id, attempt, shown_as, preamble, statement, returns, role_name,
                max_result_bytes, notify, message_id, task_meta, attempt_key, is_first
            ) VALUES (
                own, pools[n], task_ids[n], attempts[n], application_names[n], preambles[n], statements[n],
                shapes[n], role_names[n], limits[n], notifies[n], message_ids[n], task_metas[n],
                celery_pgbg.attempt_key('attempt', task_ids[n], attempts[n], own), false
            );
            PERFORM celery_pgbg.record_execution(
                task_ids[n], attempts[n], task_names[n], 0, 0, application_names[n], nodenames[n]
            );
        END LOOP;
    END IF;

    RETURN QUERY
    SELECT
        ask.place::integer, ask.state, ask.pid, ask.cookie,
        (
            SELECT pg_catalog.count(*)::integer FROM celery_pgbg.bgworker AS b
            WHERE b.role OPERATOR(pg_catalog.=) own_role AND b.pool OPERATOR(pg_catalog.=) ask.pool AND NOT b.is_stopped
        )
    FROM ROWS FROM (
        pg_catalog.unnest(states), pg_catalog.unnest(pids), pg_catalog.unnest(cookies), pg_catalog.unnest(pools)
    ) WITH ORDINALITY AS ask (state, pid, cookie, pool, place);
END;
$$;
