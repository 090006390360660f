"""What a background worker says at its end is told by SQLSTATEs and records, never by the words of a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from celery_pgbg.execution.runner import Runner
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Raised, Returned
from tests.fix_runner import in_background, order, run
from tests.waiting import eventually


def launches(database: Any, asked: Order) -> int:
    """How often an attempt was launched."""
    query = "SELECT launches FROM celery_pgbg.execution WHERE task_id = %s"
    return int(database.execute(query, [asked.attempt.task_id]).fetchone()[0])


@pytest.fixture
def slow(database: Any) -> str:
    """A function that takes a while for each row, and leaves the type of a value nobody expects."""
    database.execute(
        "CREATE OR REPLACE FUNCTION slow(i integer) RETURNS integer LANGUAGE plpgsql"
        " AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN i; END $$"
    )
    return "SELECT slow(i) FROM generate_series(1, 5) AS i"


@pytest.mark.parametrize("options", [{}, {"ignore_result": True}, {"atomic": False}])
def test_a_transaction_timeout_is_the_statements_error_once(
    runner: Runner, database: Any, slow: str, options: dict[str, Any]
) -> None:
    if database.info.server_version < 170000:
        pytest.skip("transaction_timeout came with PostgreSQL 17")
    asked = order(slow, settings={"transaction_timeout": "500ms"}, **options)
    for ending in (run(runner, asked), run(runner, asked)):
        assert isinstance(ending, Raised)
        assert (ending.report.sqlstate, launches(database, asked)) == ("25P04", 1)


@pytest.mark.parametrize("message", ["mine", "revoked from another process", "canceling statement due to user request"])
@pytest.mark.parametrize("sqlstate", ["57014", "57P01", "57P02", "08006"])
@pytest.mark.parametrize("options", [{}, {"reuse": True}, {"atomic": False}])
def test_an_error_of_the_statements_own_is_no_cancel_of_ours(
    runner: Runner, database: Any, sqlstate: str, message: str, options: dict[str, Any]
) -> None:
    asked = order(f"DO $$ BEGIN RAISE SQLSTATE '{sqlstate}' USING MESSAGE = '{message}'; END $$", **options)
    ending = run(runner, asked)
    assert isinstance(ending, Raised)
    assert (ending.report.sqlstate, ending.report.message, ending.report.stopped) == (sqlstate, message, None)
    assert launches(database, asked) == 1


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.parametrize("options", [{}, {"reuse": True}, {"atomic": False}])
def test_what_an_operator_ends_fails_once_for_every_delivery(
    new_runner: Callable[..., Runner], database: Any, how: str, options: dict[str, Any]
) -> None:
    ours, theirs = (new_runner(pgbg_sweep_interval=0.3) for _ in range(2))
    asked = order("DO $$ BEGIN PERFORM pg_sleep(60); END $$", **options)
    watch, first, endings = in_background(ours, asked)
    sleeps = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
    eventually("it sleeps", lambda: watch.pid and database.execute(sleeps, [watch.pid]).fetchone())
    copy, second, more_endings = in_background(theirs, asked)
    eventually("the copy knows it", lambda: copy.pid)
    database.execute(f"SELECT {how}(%s)", [watch.pid])
    for thread in (first, second):
        thread.join(60)
    for [ending] in (endings, more_endings):
        assert isinstance(ending, Raised)
        assert ending.report.sqlstate in ("57014", "57P01")
    assert launches(database, asked) == 1


def test_rows_that_are_left_in_the_queue_are_no_success(runner: Runner, database: Any, slow: str) -> None:
    """More than the queue holds, and then stopped; fewer, and then an error; and the whole of it."""
    many = run(runner, order("SELECT repeat('x', 1000) FROM generate_series(1, 5000)", atomic=False))
    assert isinstance(many, Raised)
    assert many.report.sqlstate == "54000"
    late = run(runner, order("SELECT 1 / (3 - i) FROM generate_series(1, 5) AS i", atomic=False))
    assert isinstance(late, Raised)
    assert late.report.sqlstate == "22012"
    assert run(runner, order(slow, atomic=False)) == Returned("SELECT 5")


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [("CALL fails(0)", "22012"), ("SELECT 1 / n FROM (VALUES (1), (0)) AS t (n)", "22012"), ("VACUUM nope", "42P01")],
)
def test_a_failed_statement_that_stands_alone_has_failed(
    runner: Runner, database: Any, statement: str, sqlstate: str
) -> None:
    database.execute("CREATE OR REPLACE PROCEDURE fails(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN n := 1 / n; END $$")
    ending = run(runner, order(statement, atomic=False))
    assert isinstance(ending, Raised)
    assert ending.report.sqlstate == sqlstate
    assert run(runner, order("CALL fails(1)", atomic=False)) == Returned("CALL")


@pytest.mark.parametrize(
    ("statement", "options"),
    [
        ("SELECT 1 FROM pg_sleep(0.5)", {}),
        ("SELECT 1 FROM pg_sleep(0.5)", {"reuse": True}),
        ("DO $$ BEGIN PERFORM pg_sleep(0.3); COMMIT; PERFORM pg_sleep(0.3); END $$", {"atomic": False}),
    ],
)
def test_nothing_is_ended_for_being_idle(runner: Runner, statement: str, options: dict[str, Any]) -> None:
    """Not its background worker, and not the session that launches it."""
    limits = {"idle_in_transaction_session_timeout": "1ms", "idle_session_timeout": "1ms"}
    assert isinstance(run(runner, order(statement, settings=limits, **options)), Returned)
