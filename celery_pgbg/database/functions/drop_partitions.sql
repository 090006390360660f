-- Drop the partitions of a table whose whole range is older than the limit. Returns their names. The default partition
-- stays, and so does a partition whose range has no end, or an end that is not a time.
CREATE OR REPLACE FUNCTION celery_pgbg.drop_partitions(parent regclass, keep interval) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    partition record;
BEGIN
    IF keep < interval '0' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('keep must not be negative, got %s', keep);
    END IF;
    FOR partition IN
        SELECT format('%I.%I', n.nspname, c.relname) AS name, bound.ends_at
        FROM pg_inherits AS i
        JOIN pg_class AS c ON c.oid = i.inhrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_partitioned_table AS p ON p.partrelid = i.inhparent AND p.partstrat = 'r' AND p.partnatts = 1
        JOIN pg_attribute AS a ON a.attrelid = i.inhparent AND a.attnum = p.partattrs[0]
            AND a.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
        CROSS JOIN LATERAL substring(
            pg_get_expr(c.relpartbound, c.oid) FROM $re$TO \('([^']+)'\)$re$
        ) AS bound (ends_at)
        WHERE i.inhparent = parent AND bound.ends_at IS NOT NULL
        ORDER BY bound.ends_at::timestamptz
    LOOP
        IF partition.ends_at::timestamptz <= now() - keep THEN
            EXECUTE 'DROP TABLE ' || partition.name;
            RETURN NEXT partition.name;
        END IF;
    END LOOP;
END;
$$;
