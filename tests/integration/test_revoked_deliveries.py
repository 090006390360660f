"""A revoke that reaches one delivery of a task and not, or not yet, another that waits for the same statement."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.execution.alone.record import StandaloneRecords
from celery_pgbg.execution.control.stopping import forget_cancel, stop_attempt, store_cancel
from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.runner import Runner
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import UNSEEN, Cancelled, Detached, Lost, Returned
from celery_pgbg.watch import Interruption, Watch
from tests.effects import effects, running
from tests.fix_runner import in_background, is_revoked, order, run
from tests.waiting import eventually

WAYS: list[dict[str, bool]] = [{}, {"reuse": True}, {"atomic": False}]


def deliver(runner: Runner, asked: Order, database: Any) -> tuple[Watch, threading.Thread, list[Any]]:
    """Let a runner take a delivery, and wait until it knows the background worker."""
    delivery = in_background(runner, asked)
    eventually("it runs", lambda: running(database, asked.attempt.task_id) and delivery[0].pid)
    return delivery


@pytest.mark.parametrize("way", WAYS, ids=["own", "reuse", "alone"])
@pytest.mark.parametrize("hears", [0, 1], ids=["launching", "attached"])
def test_one_delivery_hears_of_it_and_the_other_ends_too(
    new_runner: Callable[..., Runner], table: str, database: Any, way: dict[str, bool], hears: int
) -> None:
    # Standing alone, each statement is committed by itself.
    query = f"DO $$ BEGIN PERFORM pg_sleep(60); INSERT INTO {table} VALUES ('x'); END $$"
    asked = order(query, **way)
    runners = [new_runner(pgbg_sweep_interval=0.1) for _ in range(2)]
    deliveries = [deliver(runner, asked, database) for runner in runners]
    assert deliveries[hears][0].interrupt(Interruption.REVOKE)
    for _, thread, endings in deliveries:
        thread.join(30)
        assert endings, "a delivery still waits"
        assert is_revoked(endings[0]), endings
    assert not running(database, asked.attempt.task_id)
    assert is_revoked(run(runners[0], asked)), "a redelivery is told the same"
    assert effects(database, table) == []
    assert sum(runner.describe()["launched"] for runner in runners) <= 1, "it was launched again"


@pytest.mark.parametrize("interruption", [Interruption.REVOKE, Interruption.DETACH])
def test_an_attached_delivery_acts_on_one_interruption_at_a_time(
    new_runner: Callable[..., Runner], database: Any, monkeypatch: pytest.MonkeyPatch, interruption: Interruption
) -> None:
    asked = order("SELECT pg_sleep(60)", atomic=False)
    (launching, thread, its_endings), (attached, other, endings) = (
        deliver(new_runner(), asked, database) for _ in range(2)
    )
    look = StandaloneRecords.live_state

    def interrupted_while_it_looks(records: StandaloneRecords) -> str | None:
        attached.interrupt(interruption)
        return look(records)

    monkeypatch.setattr(StandaloneRecords, "live_state", interrupted_while_it_looks)
    other.join(30)
    if interruption is Interruption.DETACH:
        assert endings == [Detached()]
        assert running(database, asked.attempt.task_id), "a deploy stopped it"
        launching.interrupt(Interruption.REVOKE)
    else:
        assert is_revoked(endings[0]), endings
    thread.join(30)
    assert is_revoked(its_endings[0]), its_endings


@pytest.mark.parametrize("way", WAYS[:2], ids=["own", "reuse"])
def test_a_shutdown_that_cancels_leaves_it_to_the_other_delivery(
    new_runner: Callable[..., Runner], table: str, database: Any, way: dict[str, bool]
) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(2)", returns="count", **way)
    runners = [new_runner(pgbg_sweep_interval=0.1) for _ in range(2)]
    (_, launching, its_endings), (attached, thread, endings) = (deliver(r, asked, database) for r in runners)
    assert attached.interrupt(Interruption.SHUTDOWN)
    thread.join(30)
    launching.join(30)
    assert endings == [Cancelled()]
    assert isinstance(its_endings[0], Lost), "a task may say that it does not want its message back then"
    assert run(runners[0], asked) == Returned(1)
    assert effects(database, table) == ["x"]


@pytest.mark.parametrize("way", WAYS, ids=["own", "reuse", "alone"])
def test_a_delivery_that_was_revoked_before_its_launch_says_so_to_others(
    new_runner: Callable[..., Runner], table: str, database: Any, way: dict[str, bool]
) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x')", **way)
    watch = Watch(asked.attempt)
    watch.interrupt(Interruption.REVOKE)
    assert new_runner().run(asked, watch) == Cancelled()
    assert is_revoked(run(new_runner(), asked))
    assert effects(database, table) == []


@pytest.mark.parametrize("interruption", [Interruption.REVOKE, Interruption.SHUTDOWN])
@pytest.mark.parametrize("way", WAYS, ids=["own", "reuse", "alone"])
def test_a_delivery_that_was_stopped_before_it_attached_stops_the_statement(
    new_runner: Callable[..., Runner], table: str, database: Any, way: dict[str, bool], interruption: Interruption
) -> None:
    query = f"DO $$ BEGIN PERFORM pg_sleep(60); INSERT INTO {table} VALUES ('x'); END $$"
    asked = order(query, **way)
    first = new_runner()
    dead, thread, _ = deliver(first, asked, database)
    dead.interrupt(Interruption.DETACH)
    thread.join(30)
    first.close()
    watch = Watch(asked.attempt)
    watch.interrupt(interruption)
    assert new_runner().run(asked, watch) == Cancelled()
    eventually("it is gone", lambda: not running(database, asked.attempt.task_id), 10)
    assert effects(database, table) == []


def test_a_stop_is_forgotten_between_the_launch_that_finds_it_and_its_reading(
    new_runner: Callable[..., Runner], table: str, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x')", returns="count")
    runner = new_runner()
    assert runner.stop(asked.attempt, "time limit") == "absent"
    read = Launcher.read_outcomes

    def forgotten_before(launcher: Launcher, attempts: list[Attempt]) -> list[StoredOutcome]:
        # As a stop after which it may run again does at once.
        with psycopg.connect(database.info.dsn, password=database.info.password, autocommit=True) as session:
            forget_cancel(session, asked.attempt, "time limit")
        return read(launcher, attempts)

    monkeypatch.setattr(Launcher, "read_outcomes", forgotten_before)
    _, thread, endings = in_background(runner, asked)
    thread.join(30)
    assert endings == [Returned(1)]
    assert effects(database, table) == ["x"]


@contextmanager
def another_delivery_in_line(database: Any, asked: Order) -> Iterator[None]:
    """Let a session of the test's own record an order, as one does that waits for a slot before its launch."""
    records = StandaloneRecords(lambda: psycopg.connect(database.info.dsn, autocommit=True), asked)
    assert records.record() == ("recorded", None)
    try:
        yield
    finally:
        records.close()


def test_a_delivery_launches_what_another_has_not_launched(
    new_runner: Callable[..., Runner], table: str, database: Any
) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x') RETURNING v", returns="value", atomic=False)
    with another_delivery_in_line(database, asked):
        _, thread, endings = in_background(runner := new_runner(), asked)
        eventually("it attaches", lambda: runner.describe()["attached"])
        # As at a deploy.
        database.execute("DELETE FROM celery_pgbg.execution WHERE task_id = %s", [asked.attempt.task_id])
    thread.join(30)
    assert endings == [Returned("x")]
    assert effects(database, table) == ["x"]


@pytest.mark.parametrize("interruption", [Interruption.SHUTDOWN, Interruption.REVOKE])
def test_no_delivery_says_that_it_has_stopped_what_nobody_saw(
    new_runner: Callable[..., Runner], database: Any, monkeypatch: pytest.MonkeyPatch, interruption: Interruption
) -> None:
    asked = order("SELECT 1", atomic=False)
    with another_delivery_in_line(database, asked):
        watch, thread, endings = in_background(runner := new_runner(), asked)
        eventually("it attaches", lambda: runner.describe()["attached"])
        look = StandaloneRecords.live_state

        def interrupted_when_gone(records: StandaloneRecords) -> str | None:
            state = look(records)
            if state is None:
                watch.interrupt(interruption)
            return state

        monkeypatch.setattr(StandaloneRecords, "live_state", interrupted_when_gone)
    thread.join(30)
    assert endings == [Lost(UNSEEN, "unknown")]


@pytest.mark.parametrize("way", WAYS, ids=["own", "reuse", "alone"])
def test_a_stop_that_was_cut_short_is_completed_by_the_next(
    new_runner: Callable[..., Runner], table: str, database: Any, way: dict[str, bool]
) -> None:
    query = f"DO $$ BEGIN PERFORM pg_sleep(60); INSERT INTO {table} VALUES ('x'); END $$"
    asked = order(query, **way)
    _, thread, endings = deliver(new_runner(pgbg_sweep_interval=0.1), asked, database)
    # Its session was lost before it could signal the background worker.
    store_cancel(database, asked.attempt, "revoked")
    stop_attempt(database, asked.attempt, "revoked")
    eventually("it is gone", lambda: not running(database, asked.attempt.task_id), 10)
    thread.join(30)
    assert is_revoked(endings[0]), endings
    assert effects(database, table) == []
