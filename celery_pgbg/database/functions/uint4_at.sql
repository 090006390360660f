-- The unsigned 32-bit number at an offset, most significant byte first.
CREATE OR REPLACE FUNCTION celery_pgbg.uint4_at(message bytea, place integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (get_byte(message, place)::bigint << 24) + (get_byte(message, place + 1) << 16)
    + (get_byte(message, place + 2) << 8) + get_byte(message, place + 3);
