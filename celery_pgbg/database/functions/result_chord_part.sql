-- Record one ended member of a chord, and return what the caller is to do.
--
-- Runs as a transaction of its own, on any session. Members of one chord that end at the same moment
-- take turns on the chord's row, so exactly one of them sees the last arrival.
--
-- State: outcome_missing (nothing recorded: the value is not in this database, call again with it),
-- waiting (others are still to come), claimed (the caller sends the callback, until its lease is over),
-- busy (another has the claim), finished (the callback was sent, this is a late copy).
CREATE OR REPLACE FUNCTION celery_pgbg.result_chord_part(
    group_id text,
    task_id text,
    group_index integer,
    status text,
    content_type text,
    content_encoding text,
    value bytea,
    outcome_attempt integer,
    task_name text,
    claim text,
    lease_ms bigint,
    OUT state text
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    own_owner CONSTANT regrole := celery_pgbg.owner();
    counted celery_pgbg.chord;
BEGIN
    IF result_chord_part.outcome_attempt IS NOT NULL AND NOT EXISTS (
        SELECT FROM celery_pgbg.outcome AS outcome
        JOIN celery_pgbg.execution AS execution USING (task_id, attempt, owner)
        WHERE outcome.owner = own_owner AND outcome.task_id = result_chord_part.task_id AND outcome.attempt = result_chord_part.outcome_attempt
            AND outcome.succeeded AND execution.task_name = result_chord_part.task_name
    ) THEN
        result_chord_part.state := 'outcome_missing';
        RETURN;
    END IF;

    INSERT INTO celery_pgbg.chord AS chord (group_id)
    VALUES (result_chord_part.group_id)
    ON CONFLICT (group_id, owner) DO NOTHING;
    SELECT chord.* INTO counted
    FROM celery_pgbg.chord AS chord
    WHERE chord.owner = own_owner AND chord.group_id = result_chord_part.group_id
    FOR UPDATE;
    IF counted.finished THEN
        result_chord_part.state := 'finished';
        RETURN;
    END IF;

    INSERT INTO celery_pgbg.chord_part AS part
        (group_id, task_id, group_index, status, content_type, content_encoding, value, outcome_attempt)
    VALUES (
        result_chord_part.group_id, result_chord_part.task_id, result_chord_part.group_index,
        result_chord_part.status, result_chord_part.content_type, result_chord_part.content_encoding,
        result_chord_part.value, result_chord_part.outcome_attempt
    )
    ON CONFLICT (group_id, task_id, group_index, owner) DO NOTHING;
    IF FOUND THEN
        counted.arrived := counted.arrived + 1;
    END IF;

    IF counted.size IS NULL OR counted.arrived < counted.size + cardinality(counted.added) THEN
        result_chord_part.state := 'waiting';
    ELSIF counted.claim <> result_chord_part.claim AND counted.claimed_until > clock_timestamp() THEN
        result_chord_part.state := 'busy';
    ELSE
        result_chord_part.state := 'claimed';
        counted.claim := result_chord_part.claim;
        counted.claimed_until := clock_timestamp() + interval '1 millisecond' * result_chord_part.lease_ms;
    END IF;
    UPDATE celery_pgbg.chord AS chord
    SET arrived = counted.arrived, claim = counted.claim, claimed_until = counted.claimed_until,
        stored_at = clock_timestamp()
    WHERE chord.owner = own_owner AND chord.group_id = result_chord_part.group_id;
END;
$$;
