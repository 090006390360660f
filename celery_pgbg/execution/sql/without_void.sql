-- A query that stands alone, in parentheses and with names for its columns, those of type void as text.
SELECT {values} FROM {query}
