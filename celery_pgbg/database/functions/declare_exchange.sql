-- Make an exchange, unless it exists. Returns its type; NULL with passive if it does not exist.
--
-- For senders too, which may not change existing exchanges: so it runs with the rights of its owner.
CREATE OR REPLACE FUNCTION celery_pgbg.declare_exchange(name text, type text, passive boolean DEFAULT false)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    key CONSTANT bytea := celery_pgbg.name_key(declare_exchange.name);
    found_type text;
BEGIN
    SELECT e.type INTO found_type FROM celery_pgbg.exchange AS e WHERE e.name_key = key;
    IF found_type IS NULL AND NOT passive THEN
        INSERT INTO celery_pgbg.exchange AS e (name, name_key, type)
        VALUES (declare_exchange.name, key, declare_exchange.type)
        ON CONFLICT (name_key) DO UPDATE SET type = e.type
        RETURNING e.type INTO found_type;
    END IF;
    RETURN found_type;
END;
$$;
