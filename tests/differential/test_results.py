"""What psycopg on a plain connection cannot show: results read later, elsewhere, or too large; refused states."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import psycopg
import pytest
from psycopg import adapt
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.numeric import FloatLoader

from celery_pgbg.execution.records.attempts import read_outcomes
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Raised, Returned
from tests.fix_runner import order, run

DAYS = [datetime.date(2026, 2, 1 + i) for i in range(1, 6)]


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("SET intervalstyle = 'iso_8601'; SELECT interval '1 day'", [datetime.timedelta(1)]),
        ("SELECT set_config('intervalstyle', 'iso_8601', true); SELECT interval '1 day'", [datetime.timedelta(1)]),
        ("SET datestyle = 'German'; SELECT timestamptz '2026-02-01 00:00Z'",
            [datetime.datetime(2026, 2, 1, tzinfo=datetime.timezone.utc)]),
        ("SELECT odd.styled(CASE WHEN i %% 2 = 0 THEN 'German' ELSE 'ISO' END, i) AS day FROM generate_series(1, 5) i",
            DAYS),
    ],
)  # fmt: skip
def test_a_style_that_psycopg_cannot_read_does_not_reach_a_value(
    odd_runner: Runner, statement: str, values: list[Any]
) -> None:
    rows = run(odd_runner, order(statement)).value
    assert [value for row in rows for value in row.values()] == values


def test_the_types_of_the_statement_are_not_looked_up_when_it_is_read(odd_runner: Runner, odd_dsn: str) -> None:
    asked = order(
        """
        CREATE TYPE odd.short_lived AS (a int);
        CREATE DOMAIN odd.short_lived_day AS date;
        CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS v;
        SELECT ROW(1)::odd.short_lived AS composite, date '2026-02-01'::odd.short_lived_day AS day, t FROM t
        """
    )
    expected = Returned([{"composite": "(1)", "day": datetime.date(2026, 2, 1), "t": "(1)"}])
    assert run(odd_runner, asked) == expected
    with psycopg.connect(odd_dsn, autocommit=True) as session:
        session.execute("DROP TYPE odd.short_lived; DROP DOMAIN odd.short_lived_day")
        [outcome] = read_outcomes(session, [asked.attempt])
    assert outcome.ending() == expected


def test_an_adapter_that_the_application_registers_later_is_honoured(
    odd_runner: Runner, odd_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = order("SELECT 1.50 AS number, ROW(1, 'x')::odd.pair AS pair", returns="row")
    before = run(odd_runner, asked).value
    assert str(before["number"]) == "1.50"
    assert before["pair"] == "(1,x)"
    monkeypatch.setattr(psycopg, "adapters", adapt.AdaptersMap(psycopg.adapters))
    monkeypatch.setattr("psycopg.postgres.adapters", psycopg.adapters)
    with psycopg.connect(odd_dsn, autocommit=True) as session:
        info = CompositeInfo.fetch(session, "odd.pair")
        assert info is not None
        register_composite(info)
        psycopg.adapters.register_loader("numeric", FloatLoader)
        [outcome] = read_outcomes(session, [asked.attempt])
    value = outcome.ending().value  # type: ignore[union-attr]
    assert value["number"] == 1.5
    assert type(value["number"]) is float
    assert (value["pair"].a, value["pair"].b) == (1, "x")


def test_rows_of_nothing_count_as_well(odd_runner: Runner) -> None:
    ending = run(odd_runner, order("SELECT NULL FROM generate_series(1, 8000000)"))
    assert isinstance(ending, Raised)
    assert "pgbg_max_result_bytes" in ending.report.message


def test_the_fields_of_an_error_are_clipped_and_say_so(odd_runner: Runner) -> None:
    ending = run(
        odd_runner,
        order(
            "DO $$ BEGIN RAISE EXCEPTION '%%', repeat('m', 1000000) USING "
            "DETAIL = repeat('d', 1000000), HINT = repeat('h', 10000), TABLE = repeat('t', 10001); END $$"
        ),
    )
    assert isinstance(ending, Raised)
    report = ending.report
    assert report.message == "m" * 10_000 + " ... (clipped, 1000000 characters)"
    assert report.fields["message_detail"] == "d" * 10_000 + " ... (clipped, 1000000 characters)"
    assert report.fields["message_hint"] == "h" * 10_000
    assert report.fields["table_name"] == "t" * 10_000 + " ... (clipped, 10001 characters)"


@pytest.mark.parametrize("how", ["SET LOCAL statement_timeout = '1s'", "SET statement_timeout TO 1000"])
@pytest.mark.parametrize("reuse", [False, True])
def test_a_time_limit_that_comes_too_late_is_refused_with_the_cure(odd_runner: Runner, how: str, reuse: bool) -> None:
    ending = run(odd_runner, order(f"{how}; SELECT pg_sleep(3)", reuse=reuse))
    assert isinstance(ending, Raised)
    if ending.report.sqlstate != "57014":
        assert 'settings={"statement_timeout": "1s"}' in ending.report.fields["message_hint"]


def test_rows_of_a_rule_are_those_that_only_a_client_gets(runner: Runner, database: psycopg.Connection[Any]) -> None:
    name = f"ruled_{uuid.uuid4().hex[:12]}"
    database.execute(
        f"CREATE TABLE {name} (a int); CREATE RULE r AS ON INSERT TO {name} DO INSTEAD SELECT 42 AS answer"
    )
    insert = f"INSERT INTO {name} VALUES (1)"
    assert database.execute(insert.encode()).fetchall() == [(42,)]
    # In the extended protocol neither: PostgreSQL does not say what columns there will be.
    assert database.execute(insert.encode(), prepare=True).description is None
    assert run(runner, order(insert)) == Returned(0)
    # Which is said in docs/how-to/write-tasks.md, with this way out.
    database.execute(f"CREATE RULE s AS ON INSERT TO {name} WHERE NEW.a > 1 DO INSTEAD SELECT 1")
    assert run(runner, order(f"{insert}; SELECT 42 AS answer")) == Returned([{"answer": 42}])
    database.execute(f"DROP TABLE {name}")
