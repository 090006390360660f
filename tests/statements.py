"""Statements of all kinds, chosen for what a splitter may stumble over. What they need is in ``NEEDED``."""

from __future__ import annotations

STATEMENTS = [
    "SELECT 1",
    "SELECT $b1$ ; $1 $b$ $b1$",
    "SELECT ';', ';;', ''';'",
    'SELECT 1 AS ";", 2 AS "a"";b"',
    r"SELECT E'\';\'', E'\\'",
    r"SELECT '\', U&'\0061;', U&'!0061;' UESCAPE '!'",
    "SELECT B'01', X'1F', N'n;'",
    "SELECT $$;$$, $a$;$$;$a$, $a1_ä$;$a1_ä$",
    "SELECT 'a'\n  ';b'",
    "SELECT 1 /* ; /* ; */ ; */ AS a",
    "SELECT 1 -- ; '\n AS a",
    "SELECT 1-- 1",
    "SELECT 4/*2;*//2",
    "SELECT 5 % 3, 5 - -3, @ -5, 2 ^ 3",
    "SELECT CASE WHEN true THEN 1 ELSE 2 END AS end",
    "SELECT 1 AS case, 2 AS begin, 3 AS atomic",
    "SELECT 1 begin",
    "SELECT 'é;', '😀', 1 AS \"ü;\"",
    "SELECT (ARRAY[1, 2, 3])[2:3], ('{1,2}'::int[])[1]",
    "(SELECT 1) UNION (SELECT 2)",
    "VALUES (1), (2)",
    "TABLE pg_catalog.pg_am",
    "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
    "DO $$ BEGIN PERFORM 1; PERFORM ';'; END $$",
    "DO 'BEGIN PERFORM 1; END'",
    "SET LOCAL work_mem = '5MB'",
    "RESET work_mem",
    "SHOW work_mem",
    "EXPLAIN (COSTS OFF) SELECT 1",
    "EXPLAIN SELECT 1",
    "ANALYZE (VERBOSE false) pg_catalog.pg_am",
    "CREATE TEMP TABLE IF NOT EXISTS made (a int, b text DEFAULT ';')",
    "CREATE OR REPLACE FUNCTION pg_temp.f1(int, int) RETURNS int LANGUAGE SQL RETURN $1*$2",
    "CREATE OR REPLACE FUNCTION pg_temp.f2() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
    "CREATE OR REPLACE FUNCTION f3() RETURNS int BEGIN ATOMIC SELECT 1 AS case; SELECT CASE WHEN 1=1 THEN 1 END; END",
    "create or replace procedure pg_temp.p1(a int) begin atomic select a; values (1); end",
    "CREATE OR REPLACE PROCEDURE pg_temp.p2() LANGUAGE plpgsql AS $$ BEGIN NULL; END $$",
    "CREATE OR REPLACE FUNCTION pg_temp.f4(begin int, atomic int) RETURNS int LANGUAGE SQL AS 'SELECT 1; SELECT 2'",
    "CREATE TEMP SEQUENCE IF NOT EXISTS numbers",
    "CREATE OR REPLACE TEMP VIEW seen AS SELECT 1 AS a",
    "CREATE TEMP TABLE IF NOT EXISTS ruled (a int)",
    "COMMENT ON EXTENSION plpgsql IS 'a; b'",
    "LOCK pg_catalog.pg_am IN ACCESS SHARE MODE",
    "NOTIFY a, 'b;c'",
    "CALL pg_temp.p0(1)",
    "PREPARE p0 (int, int) AS SELECT $1,$2",
    "EXECUTE q0(1)",
    "DECLARE c0 CURSOR FOR SELECT 1",
    "CREATE RULE r0 AS ON DELETE TO pg_temp.t0 DO ALSO (SELECT 1; SELECT CASE WHEN true THEN 2 END; NOTIFY a)",
    "INSERT INTO pg_temp.t0 VALUES (7), (8) RETURNING a",
    "SELECT a AS into, 1 AS vacuum FROM pg_temp.t0",
]

#: What has to be there for them, in the session that runs them.
NEEDED = """
CREATE TEMP TABLE t0 (a int);
CREATE PROCEDURE pg_temp.p0(a int) LANGUAGE SQL AS 'INSERT INTO pg_temp.t0 VALUES (a)';
PREPARE q0 (int) AS SELECT $1
"""

#: What our parser does not know, with the semicolons in the places where newer grammars have them.
NEWER = [
    "SELECT 1 FROM PROPERTY GRAPH g MATCH (a IS b WHERE a.c = ';')",
    "CREATE FUNCTION f5() RETURNS int NEWLY BEGIN ATOMIC SELECT 1 AS case; SELECT CASE 1 WHEN 1 THEN 2 END; END",
    "CREATE PROCEDURE p5() NEWLY BEGIN ATOMIC SELECT a.case FROM a; SELECT (CASE 1 WHEN 1 THEN 2 END); END",
    "CREATE RULE r5 AS ON INSERT TO t NEWLY (SELECT 1; SELECT 2)",
    "SELECT 1a, 0x, $1a FROM NEWLY",
    r"SELECT E'\u12;', E'\ud800;\\' FROM NEWLY",
]

#: What may stand between two statements.
GAPS = ["", " ", "\n", "-- SELECT 1;\n", "/* ; */", "/* SELECT 1 /* ; */ */ ", "\t-- it's\n  "]
