"""Stopping an attempt from a process that does not wait for it, on a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from celery_pgbg.execution.control.stopping import Stop
from celery_pgbg.execution.runner import Runner
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import ErrorReport, Raised, Returned
from tests.effects import effects, held, running
from tests.fix_runner import in_background, order, run
from tests.waiting import eventually

STOPPED = Raised(ErrorReport("57014", "stopped", stopped="by hand"))


@pytest.fixture
def stop(new_runner: Callable[..., Runner]) -> Callable[[Order], Stop]:
    """Stop an attempt as another process would."""
    other = new_runner()
    return lambda asked: other.stop(asked.attempt, "by hand", "stopped")


def assert_stops(runner: Runner, stop: Callable[[Order], Stop], database: Any, asked: Order) -> None:
    _, thread, endings = in_background(runner, asked)
    eventually("it runs", lambda: running(database, asked.attempt.task_id))
    assert stop(asked) == "stopped"
    thread.join()
    assert endings == [STOPPED]
    eventually("it is gone", lambda: not running(database, asked.attempt.task_id))
    assert run(runner, asked) == STOPPED, "a redelivery is told the same"


@pytest.mark.parametrize("reuse", [False, True])
def test_a_running_attempt_ends_without_effects(
    runner: Runner, stop: Callable[[Order], Stop], table: str, database: Any, reuse: bool
) -> None:
    query = f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(60)"
    assert_stops(runner, stop, database, order(query, reuse=reuse))
    assert effects(database, table) == []


def test_a_statement_that_stands_alone_ends(runner: Runner, stop: Callable[[Order], Stop], database: Any) -> None:
    assert_stops(runner, stop, database, order("DO $$ BEGIN PERFORM pg_sleep(60); END $$", atomic=False))


def test_no_task_is_handed_over_to_a_worker_that_is_being_stopped(
    runner: Runner, stop: Callable[[Order], Stop], database: Any
) -> None:
    for _ in range(20):
        asked = order("SELECT pg_sleep(60)", reuse=True)
        _, thread, _ = in_background(runner, asked)
        eventually("it runs", lambda asked=asked: running(database, asked.attempt.task_id))
        stopping = threading.Thread(target=stop, args=(asked,))
        stopping.start()
        thread.join()
        assert run(runner, order("SELECT 1", returns="value", reuse=True)) == Returned(1)
        stopping.join()


def test_an_attempt_that_has_ended_stands(
    runner: Runner, stop: Callable[[Order], Stop], table: str, database: Any
) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x')", returns="count")
    assert run(runner, asked) == Returned(1)
    assert stop(asked) == "finished"
    assert run(runner, asked) == Returned(1)
    assert effects(database, table) == ["x"]


@pytest.mark.parametrize("atomic", [True, False])
def test_an_attempt_that_is_not_launched_yet_never_is(
    runner: Runner, stop: Callable[[Order], Stop], atomic: bool
) -> None:
    asked = order("SELECT 1", atomic=atomic)
    assert stop(asked) == "absent"
    assert run(runner, asked) == STOPPED


def test_an_attempt_that_is_about_to_commit_cannot(
    runner: Runner, stop: Callable[[Order], Stop], table: str, database: Any
) -> None:
    """The cancel is stored, but the background worker is not found, as in the moment before it shows itself."""
    asked = order(f"INSERT INTO {table} VALUES ('x'); SELECT pg_advisory_xact_lock(5)")
    with held(database, 5):
        _, thread, endings = in_background(runner, asked)
        eventually("it runs", lambda: running(database, asked.attempt.task_id))
        hidden = order("", attempt=asked.attempt, task_name="another")
        hide = "UPDATE celery_pgbg.execution SET launched_at = '2000-01-01', pid = 0 WHERE task_id = %s"
        # The background worker shows itself before its record is committed.
        eventually("its record is hidden", lambda: database.execute(hide, [asked.attempt.task_id]).rowcount)
        assert stop(hidden) == "absent"
    thread.join()
    assert endings == [STOPPED]
    eventually("it is gone", lambda: not running(database, asked.attempt.task_id))
    assert effects(database, table) == []
