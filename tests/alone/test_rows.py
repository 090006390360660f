"""Rows of statements that stand alone, where the task asks for them."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from celery_pgbg.errors import ResultTooLarge

_VALUES = """
    SELECT number AS n, 'a"b,(' || number AS text, 1.50::numeric AS amount, date '2026-01-31' AS day,
        interval '1 day 2 hours' AS span, NULL::integer AS nothing, ARRAY['x', NULL, ''] AS list,
        '{"k": [1]}'::jsonb AS json
    FROM generate_series(1, 2) AS number
"""


def test_rows_are_what_psycopg_gives(alone: Callable[..., Any], database: psycopg.Connection[Any]) -> None:
    cursor = database.cursor(row_factory=psycopg.rows.dict_row)
    expected = cursor.execute(_VALUES).fetchall()
    assert alone(_VALUES, returns="rows")() == expected
    assert alone(_VALUES, returns="row")() == expected[0]
    assert alone(_VALUES, returns="value")() == 1
    assert alone(_VALUES, returns="count")() == 2
    assert alone(_VALUES)() == "SELECT 2"


def test_the_styles_of_a_role_change_nothing(alone: Callable[..., Any]) -> None:
    settings = {"datestyle": "German", "intervalstyle": "iso_8601"}
    query = "SELECT date '2026-01-31' AS day, interval '1 day' AS span"
    expected = {"day": datetime.date(2026, 1, 31), "span": datetime.timedelta(days=1)}
    assert alone(query, returns="row", settings=settings)() == expected


def test_a_procedure_that_commits_returns_its_results(
    alone: Callable[..., Any], database: psycopg.Connection[Any], table: str
) -> None:
    body = f"BEGIN FOR n IN 1..3 LOOP INSERT INTO {table} VALUES (n); COMMIT; END LOOP; total := 3; note := 'done'; END"
    procedure = sql.Identifier(f"fill_{table}")
    create = sql.SQL("CREATE PROCEDURE {}(INOUT total integer, OUT note text) LANGUAGE plpgsql AS {}")
    database.execute(create.format(procedure, body))
    try:
        call = sql.SQL("CALL {}(0, NULL)").format(procedure)
        assert alone(call, returns="row")() == {"total": 3, "note": "done"}
        assert alone(call)() == "CALL"
        count = database.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
        assert count == (6,)
    finally:
        database.execute(sql.SQL("DROP PROCEDURE {}").format(procedure))


def test_changed_rows_are_counted_and_returned(alone: Callable[..., Any], table: str) -> None:
    insert = f"INSERT INTO {table} SELECT n FROM generate_series(1, 3) AS n"
    assert alone(insert, returns="count")() == 3
    assert alone(f"{insert} RETURNING v", returns="rows")() == [{"v": "1"}, {"v": "2"}, {"v": "3"}]
    assert alone(f"VACUUM {table}", returns="count")() == 0


def test_no_rows_are_an_empty_list(alone: Callable[..., Any]) -> None:
    assert alone("SELECT 1 AS one WHERE false", returns="rows")() == []
    assert alone("SELECT 1 AS one WHERE false", returns="row")() is None
    assert alone("SELECT 1 AS one WHERE false", returns="value")() is None


def test_rows_are_objects_where_the_task_says_so(alone: Callable[..., Any]) -> None:
    @dataclass
    class Total:
        customer: str
        total: Decimal

    query = "SELECT 'ann' AS customer, 2.50::numeric AS total"
    assert alone(query, rows_as=Total)() == [Total("ann", Decimal("2.50"))]


def test_what_cannot_be_read_is_an_error_before_anything_runs(alone: Callable[..., Any], table: str) -> None:
    with pytest.raises(psycopg.errors.SyntaxError, match='returns="rows", but its statement returns no rows'):
        alone(f"INSERT INTO {table} VALUES ('x')", returns="rows")()
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="the type record cannot be read"):
        alone(f"INSERT INTO {table} VALUES ('x') RETURNING ROW(1, 2)", returns="rows")()
    assert alone(f"SELECT count(*) FROM {table}", returns="value")() == 0


def test_void_is_read_as_psycopg_reads_it(alone: Callable[..., Any]) -> None:
    assert alone("SELECT pg_sleep(0), 1 AS one", returns="row")() == {"pg_sleep": "", "one": 1}


def test_too_many_bytes_are_an_error_that_says_that_it_was_done(alone: Callable[..., Any], table: str) -> None:
    insert = f"INSERT INTO {table} SELECT repeat('x', 1000) FROM generate_series(1, %s) RETURNING v"
    few = alone(insert % 100, returns="rows")
    few.app.conf.pgbg_max_result_bytes = 10_000
    few.app._pgbg_settings = None
    with pytest.raises(ResultTooLarge, match="its effects stay"):
        few()
    assert alone(f"SELECT count(*) FROM {table}", returns="value")() == 100
    # more than the queue holds: stopped before it commits
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="do not fit into the queue"):
        alone(insert % 5000, returns="rows")()
    assert alone(f"SELECT count(*) FROM {table}", returns="value")() == 100


def test_an_error_is_the_statements_own(alone: Callable[..., Any]) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        alone("SELECT 1 / 0", returns="rows")()
    with pytest.raises(psycopg.errors.UndefinedTable):
        alone("SELECT * FROM nowhere", returns="rows")()
