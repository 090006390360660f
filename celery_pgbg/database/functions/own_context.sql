-- An error's context as a client would see it after sending the statement: without our functions below the statement, and
-- without the statement, which PL/pgSQL adds with all its values. ``executed``: the texts that may have been added as a
-- whole; ``beginnings``: how other texts of ours begin. The texts themselves are searched for, because the words between
-- them are in the server's language.
CREATE OR REPLACE FUNCTION celery_pgbg.own_context(context text, executed text[], beginnings text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    below CONSTANT integer := coalesce(
        nullif(strpos(context, 'celery_pgbg.execute_statement(text,'), 0), nullif(strpos(context, 'celery_pgbg.run_v1(text,'), 0),
        nullif(strpos(context, 'celery_pgbg.walk_batch(text,'), 0),
        -- a walk that cannot begin: the first of our functions
        CASE WHEN strpos(context, 'celery_pgbg.walk_start(text,') > 0 THEN strpos(context, 'celery_pgbg.walk_') ELSE 0 END
    );
    own text := left(context, below - 1);
    added text;
    place integer;
BEGIN
    IF below = 0 THEN
        RETURN context;
    END IF;
    -- what is before our function's name in its line
    own := regexp_replace(own, '\n?[^\n]*$', '');
    FOREACH added IN ARRAY executed LOOP
        -- and one quotation mark
        IF added <> '' AND left(right(own, length(added) + 1), length(added)) = added THEN
            RETURN regexp_replace(left(own, -length(added) - 1), '\n?[^\n]*$', '');
        END IF;
    END LOOP;
    FOREACH added IN ARRAY beginnings LOOP
        place := strpos(reverse(own), reverse(added));
        IF added <> '' AND place > 0 THEN
            RETURN regexp_replace(left(own, length(own) - place - length(added) + 1), '\n?[^\n]*$', '');
        END IF;
    END LOOP;
    RETURN own;
END;
$$;
