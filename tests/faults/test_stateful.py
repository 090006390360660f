"""Deliver, run, revoke, kill, redeliver and retry in any order, against a book that counts effects.

Three runners stand for three Celery workers, two of them told by NOTIFY and one polling. Rules wait for
conditions only. ``PGBG_STATEFUL_EXAMPLES`` asks for more than the few examples of an ordinary run, and for new ones.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from celery_pgbg.errors import SessionLost
from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.runner import Runner
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Cancelled, Detached, Lost, Raised, Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Interruption, Watch
from tests.faults.oracle import Book, Tried, statement
from tests.waiting import DEADLINE, eventually

ASKED = int(os.environ.get("PGBG_STATEFUL_EXAMPLES", "0"))

NUMBERS = st.integers(0, 2)
DELIVERIES = st.lists(NUMBERS, min_size=1, max_size=3)


class Runners:
    """Three runners, remade when one is closed; shared by all examples."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._runners = [self._new(number) for number in range(3)]

    def __getitem__(self, number: int) -> Runner:
        return self._runners[number]

    def _new(self, number: int) -> Runner:
        configured = {"pgbg_sweep_interval": 0.1, "pgbg_poll_interval": 0.3, "pgbg_notify": number != 0}
        return Runner(self._dsn, read_settings({"pgbg_dsn": self._dsn, **configured}), f"stateful-{number}")

    def renew(self, number: int) -> None:
        """Close one, as the end of its Celery worker would, and make another in its place."""
        self._runners[number].close()
        self._runners[number] = self._new(number)

    def check(self) -> None:
        """Nothing is held any more, in this process and in the launching sessions."""
        for runner in self._runners:
            assert runner.watches.entries() == []
            assert len(runner.line) == 0
            for launcher in runner.launchers:
                eventually("no handle is left", lambda: _handles(launcher) == {})  # noqa: B023

    def close(self) -> None:
        """Close all."""
        for runner in self._runners:
            runner.close()


def _handles(launcher: Launcher) -> Any:
    try:
        launcher.flush()
        return launcher.states()
    except SessionLost:
        return None


class Delivery:
    """One delivery of an attempt to a runner, in a thread of its own."""

    def __init__(self, runner: Runner, number: int, tried: Tried) -> None:
        self.number = number
        attempt = Attempt(tried.task_id, tried.number)
        order = Order(attempt, "stateful", runner._nodename, statement(tried), {}, "value", reuse=tried.reuse)
        self.watch = Watch(attempt)
        self._endings: list[Any] = []
        self.thread = threading.Thread(target=lambda: self._endings.append(runner.run(order, self.watch)), daemon=True)
        self.thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether its thread is done."""
        return not self.thread.is_alive()

    def ending(self) -> Any:
        """Wait for its end."""
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive(), f"{self.watch.attempt} does not end"
        [ending] = self._endings
        return ending


class Deliveries(RuleBasedStateMachine):
    """What brokers, users and accidents do to tasks."""

    dsn: str
    runners: Runners

    attempts = Bundle("attempts")
    in_flight = attempts.filter(lambda tried: tried.is_wanted)
    any_in_flight = precondition(lambda self: any(tried.is_wanted for tried in self.book.attempts))

    @initialize()
    def _open_the_book(self) -> None:
        self.book = Book(self.dsn)

    # --- rules ---------------------------------------------------------------------------------------

    @rule(target=attempts, fails=st.booleans(), reuse=st.booleans(), to=DELIVERIES)
    def send(self, fails: bool, reuse: bool, to: list[int]) -> Tried:
        """A new task is delivered, perhaps several times at once."""
        tried = self.book.enter(Tried(str(uuid.uuid4()), 0, fails, reuse))
        self._deliver(tried, to)
        return tried

    @rule(tried=attempts, to=DELIVERIES)
    def redeliver(self, tried: Tried, to: list[int]) -> None:
        """The broker sends it again, whatever has become of it. What was revoked it does not send again."""
        if tried.fate != "revoked":
            self._deliver(tried, to)

    @rule(target=attempts, tried=attempts, fails=st.booleans(), to=DELIVERIES)
    def retry(self, tried: Tried, fails: bool, to: list[int]) -> Tried:
        """What has failed is tried again, as Celery does it: same id, next number."""
        numbers = [other.number for other in self.book.attempts if other.task_id == tried.task_id]
        if tried.fate != "failed" or tried.number != max(numbers):
            return tried
        again = self.book.enter(Tried(tried.task_id, tried.number + 1, fails, tried.reuse))
        self._deliver(again, to)
        return again

    @any_in_flight
    @rule(tried=in_flight)
    def finish(self, tried: Tried) -> None:
        """Its statement comes to its end, perhaps while nobody waits for it."""
        tried.is_wanted = False
        if not self.book.at_the_gate(tried):
            return
        self.book.let_through(tried)
        if tried.deliveries:
            self._settle(tried, {"succeeded", "failed"})
        else:
            eventually("it has ended unseen", lambda: self.book.has_outcome(tried))
            tried.fate = "failed" if tried.fails else "succeeded"

    @any_in_flight
    @rule(tried=in_flight)
    def revoke(self, tried: Tried) -> None:
        """Every Celery worker hears of it."""
        tried.is_wanted = False
        if tried.deliveries:
            self._interrupt(tried)
            self._settle(tried, {"revoked"})

    @any_in_flight
    @rule(tried=in_flight, first=st.sampled_from(["finish", "commit", "revoke"]))
    def finish_and_revoke(self, tried: Tried, first: str) -> None:
        """Both at the same moment, perhaps in the one between commit and notice: one of them wins, wholly."""
        tried.is_wanted = False
        if not tried.deliveries:
            return
        if first == "revoke":
            self._interrupt(tried)
        self.book.let_through(tried)
        if first == "commit":
            eventually("it has committed", lambda: self.book.has_outcome(tried))
        self._interrupt(tried)
        self._settle(tried, {"succeeded", "failed"} if first == "commit" else {"succeeded", "failed", "revoked"})

    @any_in_flight
    @rule(tried=in_flight)
    def kill_the_background_worker(self, tried: Tried) -> None:
        """Who launched is told that it is lost; who was attached runs it again."""
        if tried.deliveries:
            self.book.kill(tried)
            self._settle_in_flight(tried)

    @any_in_flight
    @rule(tried=in_flight)
    def finish_and_kill(self, tried: Tried) -> None:
        """The background worker is ended while it commits."""
        tried.is_wanted = False
        if not tried.deliveries:
            return
        self.book.let_through(tried)
        self.book.kill(tried)
        self._settle(tried, {"succeeded", "failed", "open"})
        if tried.fate == "open":
            self.book.close_the_gate(tried)

    @any_in_flight
    @rule(number=NUMBERS)
    def end_the_sessions(self, number: int) -> None:
        """The server ends all sessions of one runner; nobody's statement minds."""
        query = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name LIKE %s"
        self.book.session.execute(query, [f"pgbg % stateful-{number}"])

    @any_in_flight
    @rule(number=NUMBERS)
    def shut_down(self, number: int) -> None:
        """A Celery worker leaves its statements; another takes its place, with none of its memory."""
        for tried in self.book.attempts:
            left = [delivery for delivery in tried.deliveries if delivery.number == number]
            for delivery in left:
                delivery.watch.interrupt(Interruption.DETACH)
                assert delivery.ending() == Detached()
                tried.deliveries.remove(delivery)
        self.runners.renew(number)

    # --- what must hold ----------------------------------------------------------------------------------

    @invariant()
    def effects_are_as_the_book_says(self) -> None:
        if hasattr(self, "book"):
            self.book.check()

    def teardown(self) -> None:
        if not hasattr(self, "book"):
            return
        for tried in self.book.attempts:
            if tried.deliveries:
                self._interrupt(tried)
                self._settle(tried, {"revoked"})
        self.book.check()
        self.book.close()

    # --- helpers -----------------------------------------------------------------------------------------

    def _deliver(self, tried: Tried, to: list[int]) -> None:
        tried.deliveries += [Delivery(self.runners[number], number, tried) for number in to]
        if tried.fate == "open":
            self._settle_in_flight(tried)
        else:
            self._settle(tried, {tried.fate})

    def _interrupt(self, tried: Tried) -> None:
        for delivery in tried.deliveries:
            delivery.watch.interrupt(Interruption.REVOKE)

    def _settle_in_flight(self, tried: Tried) -> None:
        """Wait until one background worker stands at the gate for its deliveries, or all were told it is lost."""

        def is_settled() -> bool:
            left = [delivery for delivery in tried.deliveries if not delivery.has_ended]
            return not left or (all(delivery.watch.pid for delivery in left) and len(self.book.at_the_gate(tried)) == 1)

        eventually(f"{tried} is settled", is_settled)
        for delivery in [delivery for delivery in tried.deliveries if delivery.has_ended]:
            assert isinstance(delivery.ending(), Lost)
            tried.deliveries.remove(delivery)

    def _settle(self, tried: Tried, allowed: set[str]) -> None:
        """Wait for the ends of all its deliveries, which must agree with each other and with what is allowed.

        A delivery that was about to launch again when the others had cancelled may come to an end of its own.
        Backends let its success stand over their REVOKED, and so does the book.
        """
        endings = [delivery.ending() for delivery in tried.deliveries]
        tried.deliveries.clear()
        # One that is told of a lost background worker claims nothing: Celery sends it again.
        fates = {_fate(ending) for ending in endings} - {"open"} or {"open"}
        fates = fates - {"revoked"} or fates
        [fate] = fates if len(fates) == 1 else [str(endings)]
        assert fate in allowed
        tried.fate = fate


def _fate(ending: Any) -> str:
    match ending:
        case Returned(1):
            return "succeeded"
        case Raised(report) if report.stopped == "revoked":
            # The outcome that another delivery's revoke has left.
            return "revoked"
        case Raised(report):
            assert report.sqlstate == psycopg.errors.DivisionByZero.sqlstate
            return "failed"
        case Cancelled():
            return "revoked"
        case Lost():
            return "open"
    raise AssertionError(ending)


@pytest.fixture
def machine(dsn: str) -> Iterator[type[Deliveries]]:
    """The rules, on the database of the tests."""
    runners = Runners(dsn)
    yield type("DeliveriesHere", (Deliveries,), {"dsn": dsn, "runners": runners})
    runners.close()


@pytest.mark.timeout(240 + 10 * ASKED)
def test_whatever_happens_effects_are_there_once_for_success_and_else_not(machine: type[Deliveries]) -> None:
    run_machine(
        machine,
        settings=settings(
            max_examples=ASKED or 12,
            stateful_step_count=30 if ASKED else 15,
            derandomize=not ASKED,
            database=None,
            verbosity=Verbosity.debug,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    machine.runners.check()
