-- Rolls a month of sales up: 100% of them.
-- args: month, least = 10, label = 'it''s, all', target = 'totals'
\set ON_ERROR_STOP on
\if :{?least}
\else
    \set least 10
\endif
\if :{?label}
\else
    \set label 'it''s, all'
\endif
\if :{?target}
\else
    \set target totals
\endif

INSERT INTO :"target" (month, label, total)
SELECT date :'month', :'label', sum(price) -- not :least, and it's no string
FROM sales
WHERE date_trunc('month', day)::date = :'month' AND price >= :least AND price % 1 = 0;

SELECT month::text, label, total::text, (ARRAY[1, 2, 3])[1:2]::text AS some, ':least' AS no, 10 % 3 AS rest, $$ :'label' $$ AS code
FROM :"target"
WHERE month = :'month';
