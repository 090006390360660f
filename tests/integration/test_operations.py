"""What operating asks of a database: what runs, how to stop it by hand, how much room there is."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import poolers
from celery_pgbg.database.sessions import connect, read_dsn
from celery_pgbg.errors import ConfigurationError
from celery_pgbg.execution.control import operations
from celery_pgbg.execution.runner import Runner
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Lost, Raised, Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Interruption, Watch
from tests.effects import effects, running
from tests.waiting import eventually


@pytest.fixture(scope="module")
def runner(dsn: str) -> Iterator[Runner]:
    """A runner with the usual settings."""
    made = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
    yield made
    made.close()


class Running:
    """An order that runs in a thread."""

    def __init__(self, runner: Runner, query: str, task_id: str | None = None, **fields: Any) -> None:
        self.task_id = task_id or str(uuid.uuid4())
        self.order = Order(Attempt(self.task_id), "test", "test", query, None, None, **fields)
        self.watch = Watch(self.order.attempt)
        self._endings: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._endings.append(runner.run(self.order, self.watch)))
        self._thread.start()

    def ending(self) -> Any:
        """Wait for its end."""
        self._thread.join(60)
        return self._endings[0]


def shown(database: Any, task_id: str) -> dict[str, Any]:
    """What ``pgbg ps`` has of a task that is asleep."""

    def asleep() -> Any:
        rows = [row for row in operations.executions(database, 0) if row["task_id"] == task_id]
        return rows[0] if rows and rows[0]["waits_for"] == "Timeout: PgSleep" else None

    row: dict[str, Any] = eventually("it sleeps", asleep)
    return row


@pytest.mark.parametrize(
    ("query", "atomic", "statement"),
    [
        ("SELECT 'it''s', pg_sleep(60)", True, "SELECT 'it''s', pg_sleep(60)"),
        ("SELECT 1; SELECT pg_sleep(60), 'x'", True, "SELECT 1; SELECT pg_sleep(60), 'x'"),
        (r"SELECT E'\d', pg_sleep(60)", True, r"SELECT E'\d', pg_sleep(60)"),
        ("DO $$ BEGIN PERFORM pg_sleep(60); END $$", False, "DO $$ BEGIN PERFORM pg_sleep(60); END $$"),
        (f"SELECT pg_sleep(60), {'1 + ' * 1000} 1", True, "SELECT pg_sleep(60), 1 + 1 +"),
    ],
)
def test_what_runs_is_shown_with_its_own_statement(
    runner: Runner, database: Any, query: str, atomic: bool, statement: str
) -> None:
    asked = Running(runner, query, atomic=atomic)
    row = shown(database, asked.task_id)
    eventually("its launcher has said who runs it", lambda: asked.watch.pid)
    assert " ".join(row["statement"].split())[: len(statement)] == statement
    assert (row["pid"], row["state"], row["task_name"]) == (asked.watch.pid, "running", "test")
    asked.watch.interrupt(Interruption.REVOKE)
    asked.ending()


def test_cancelled_by_hand_it_fails_and_never_runs_again(runner: Runner, database: Any, table: str) -> None:
    query = f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(60)"
    asked = Running(runner, query)
    shown(database, asked.task_id)
    assert operations.cancel_by_hand(database, asked.task_id) == [True]
    for ending in (asked.ending(), Running(runner, query, asked.task_id).ending()):
        assert isinstance(ending, Raised)
        assert (ending.report.sqlstate, "by hand" in ending.report.message) == ("57014", True)
    eventually("it is gone", lambda: not running(database, asked.task_id))
    assert effects(database, table) == []
    assert operations.cancel_by_hand(database, asked.task_id) == []


def test_a_statement_that_stands_alone_is_stopped_by_hand_and_has_no_outcome(runner: Runner, database: Any) -> None:
    asked = Running(runner, "DO $$ BEGIN PERFORM pg_sleep(60); END $$", atomic=False)
    shown(database, asked.task_id)
    assert operations.cancel_by_hand(database, asked.task_id) == [False]
    assert isinstance(asked.ending(), Lost)


def test_cancelled_by_hand_at_the_moment_of_its_end_it_has_one_consistent_end(
    runner: Runner, database: Any, table: str
) -> None:
    ends = {"returned": 0, "cancelled": 0}
    for number in range(40):
        asked = Running(runner, f"INSERT INTO {table} VALUES ('{number}'); SELECT pg_sleep({random.uniform(0, 0.02)})")
        eventually("it is launched", lambda watch=asked.watch: watch.pid)
        stopped = operations.cancel_by_hand(database, asked.task_id)
        match asked.ending():
            case Returned():
                ends["returned"] += 1
                assert not stopped
                assert str(number) in effects(database, table)
            case Raised(report):
                ends["cancelled"] += 1
                assert (stopped, report.sqlstate) == ([True], "57014")
                assert str(number) not in effects(database, table)
            case other:
                pytest.fail(f"neither: {other}")
    print(ends)


def test_an_innocent_process_with_the_recorded_pid_is_left_alone(dsn: str, database: Any) -> None:
    task_id = str(uuid.uuid4())
    with psycopg.connect(dsn, autocommit=True) as innocent:
        database.execute(
            "INSERT INTO celery_pgbg.execution (task_id, attempt, task_name, atomic, pid, cookie, application_name,"
            " nodename) VALUES (%s, 0, 'test', true, %s, 1, 'test', 'test')",
            [task_id, innocent.info.backend_pid],
        )
        assert operations.cancel_by_hand(database, task_id) == []
        assert innocent.execute("SELECT 1").fetchone() == (1,)
    assert database.execute("SELECT FROM celery_pgbg.outcome WHERE task_id = %s", [task_id]).fetchone() is None


def test_slots_count_what_runs(runner: Runner, database: Any) -> None:
    asked = Running(runner, "SELECT pg_sleep(60)")
    shown(database, asked.task_id)
    slots = operations.slots(database)
    assert slots.used >= 1
    assert slots.used + slots.used_by_others <= slots.server_worker_limit
    asked.watch.interrupt(Interruption.REVOKE)
    asked.ending()


def test_a_direct_session_is_no_pooler(database: Any) -> None:
    assert not poolers.through_pooler(database)


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        ("postgresql://u:secret@[::1:5/x", "IPv6"),
        ("postgresql://u:secret%zz@h/d", "percent-encoded"),
        ("host=h password=a secret", 'missing "="'),
        ("host=h password='secret", "unterminated|malformed"),
        ("host=h colour=secret", 'invalid connection option "colour"'),
        ("postgresql://u:secret@h/d?colour=red", 'invalid URI query parameter: "colour"'),
        ("postgresql://u:secret@h:port/d", "port must be a number, got 'port'"),
        ("postgresql://u:secret@h/d?connect_timeout=soon", "connect_timeout must be a number, got 'soon'"),
    ],
)
def test_a_dsn_that_cannot_be_read_is_said_without_its_password(dsn: str, message: str) -> None:
    for read in (read_dsn, lambda dsn: connect(dsn, application_name="x", connect_timeout=1), unread_by_a_runner):
        with pytest.raises(ConfigurationError, match=message) as raised:
            read(dsn)
        assert "secret" not in str(raised.value)


def unread_by_a_runner(dsn: str) -> None:
    Runner(dsn, read_settings({}))


def test_several_hosts_and_ports_are_read() -> None:
    assert read_dsn("postgresql://u@h1:5432,h2/d")["port"] in ("5432,", "5432")
    assert read_dsn("host=h1,h2 port=1,2 dbname=d")["port"] == "1,2"
