-- Create the partitions of a table for the present day, week, month or year, and for ``ahead`` following ones, unless
-- partitions of these names exist. Returns the names of the new partitions.
--
-- The table is partitioned by range of one column of a date or time. Times without a zone of their own are those of
-- the session's time zone.
CREATE OR REPLACE FUNCTION celery_pgbg.create_partitions(parent regclass, step text, ahead integer)
RETURNS SETOF text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
DECLARE
    suffix CONSTANT text := CASE step
        WHEN 'day' THEN 'YYYY_MM_DD' WHEN 'week' THEN 'IYYY_"w"IW' WHEN 'month' THEN 'YYYY_MM' WHEN 'year' THEN 'YYYY'
    END;
    schema_name text;
    table_name text;
    column_type text;
    begins_at timestamptz;
    ends_at timestamptz;
    partition text;
BEGIN
    IF suffix IS NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('step must be day, week, month or year, got "%s"', step);
    END IF;
    SELECT n.nspname, c.relname, format_type(a.atttypid, NULL) INTO schema_name, table_name, column_type
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_partitioned_table AS p ON p.partrelid = c.oid AND p.partstrat = 'r' AND p.partnatts = 1
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
    WHERE c.oid = parent;
    IF column_type IS NULL
        OR column_type NOT IN ('date', 'timestamp without time zone', 'timestamp with time zone')
    THEN
        RAISE wrong_object_type USING
            MESSAGE = format('%s is not partitioned by range of one column of a date or time', parent);
    END IF;
    FOR number IN 0 .. ahead LOOP
        begins_at := date_trunc(step, now()) + number * ('1 ' || step)::interval;
        ends_at := begins_at + ('1 ' || step)::interval;
        partition := format('%I.%I', schema_name, table_name || '_' || to_char(begins_at, suffix));
        IF to_regclass(partition) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE %s PARTITION OF %I.%I FOR VALUES FROM (%L) TO (%L)', partition, schema_name, table_name,
                CASE column_type WHEN 'timestamp with time zone' THEN begins_at::text ELSE begins_at::timestamp::text END,
                CASE column_type WHEN 'timestamp with time zone' THEN ends_at::text ELSE ends_at::timestamp::text END
            );
            RETURN NEXT partition;
        END IF;
    END LOOP;
END;
$$;
