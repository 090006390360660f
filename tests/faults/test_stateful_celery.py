"""The same with real Celery workers, two of them: a few examples, since each kill costs a start."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from celery import states
from hypothesis import HealthCheck, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from celery_pgbg.broker.station import close_stations
from celery_pgbg.database.results import close_stores
from celery_pgbg.settings import Settings
from tests.faults.oracle import Book, Tried, statement
from tests.fix_celery import Shop
from tests.waiting import eventually

ASKED = int(os.environ.get("PGBG_STATEFUL_EXAMPLES", "0")) // 10

#: How often an attempt is launched before it fails.
MOST_LAUNCHES = Settings.max_launches

FATES = {states.SUCCESS: "succeeded", states.FAILURE: "failed", states.REVOKED: "revoked"}


class Messages(RuleBasedStateMachine):
    """What users and accidents do to messages and Celery workers."""

    dsn: str
    shop: Shop

    attempts = Bundle("attempts")
    in_flight = attempts.filter(lambda tried: tried.fate == "open")
    any_in_flight = precondition(lambda self: any(tried.fate == "open" for tried in self.book.attempts))
    # Each message in flight has a thread of a Celery worker, and there are sixteen.
    has_room = precondition(lambda self: sum(self.copies[tried.task_id] for tried in self.book.attempts) <= 16 - 3)

    @initialize()
    def _open_the_book(self) -> None:
        self.book = Book(self.dsn)
        self.kills = 0
        self.copies: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()

    # --- rules -------------------------------------------------------------------------------------

    @has_room
    @rule(target=attempts, fails=st.booleans(), copies=st.integers(1, 3))
    def send(self, fails: bool, copies: int) -> Tried:
        """A new task, perhaps in several messages."""
        tried = self.book.enter(Tried(str(uuid.uuid4()), 0, fails))
        self._send(tried, copies)
        return tried

    @any_in_flight
    @has_room
    @rule(tried=in_flight, copies=st.integers(1, 2))
    def send_again(self, tried: Tried, copies: int) -> None:
        """Its message once more, while it runs."""
        self._send(tried, copies)

    @any_in_flight
    @rule(tried=in_flight)
    def finish(self, tried: Tried) -> None:
        """Its statement comes to its end."""
        self.book.let_through(tried)
        self._settle(tried, "failed" if tried.fails else "succeeded")

    @any_in_flight
    @rule(tried=in_flight)
    def revoke(self, tried: Tried) -> None:
        """While it runs."""
        self._result(tried).revoke(terminate=True)
        self._settle(tried, "revoked")

    @any_in_flight
    @rule(tried=in_flight, revoke_first=st.booleans())
    def finish_and_revoke(self, tried: Tried, revoke_first: bool) -> None:
        """Both at the same moment: one of them wins, wholly."""
        if revoke_first:
            self._result(tried).revoke(terminate=True)
        self.book.let_through(tried)
        self._result(tried).revoke(terminate=True)
        self._settle(tried, "failed" if tried.fails else "succeeded", "revoked")

    @any_in_flight
    @rule(tried=in_flight)
    def kill_the_background_worker(self, tried: Tried) -> None:
        """Its message goes back to the queue, and it runs anew, unless it was launched as often as it may be."""
        if self.launches[tried.task_id] == MOST_LAUNCHES:
            return
        self.launches[tried.task_id] += 1
        self.book.kill(tried)
        self._settle_in_flight(tried)

    @any_in_flight
    @precondition(lambda self: self.kills < 1)
    @rule(number=st.integers(0, 1))
    def kill_a_celery_worker(self, number: int) -> None:
        """Its messages go to the other one, which finds the statements running."""
        self.kills += 1
        alive = [worker for worker in self.shop.workers if worker.process.poll() is None]
        alive[number].kill()
        self.shop.start_worker()

    # --- what must hold ----------------------------------------------------------------------------

    @invariant()
    def effects_are_as_the_book_says(self) -> None:
        if hasattr(self, "book"):
            self.book.check()

    def teardown(self) -> None:
        if not hasattr(self, "book"):
            return
        for tried in self.book.attempts:
            if tried.fate == "open":
                self.finish(tried)
        self.book.check()
        self.book.close()

    # --- helpers -------------------------------------------------------------------------------------

    def _send(self, tried: Tried, copies: int) -> None:
        self.copies[tried.task_id] += copies
        self.launches.setdefault(tried.task_id, 1)
        for _ in range(copies):
            self.shop.task("statement").apply_async((statement(tried),), task_id=tried.task_id)
        self._settle_in_flight(tried)

    def _result(self, tried: Tried) -> Any:
        return self.shop.app.AsyncResult(tried.task_id)

    def _settle_in_flight(self, tried: Tried) -> None:
        eventually("it stands at the gate", lambda: len(self.book.at_the_gate(tried)) == 1)

    def _settle(self, tried: Tried, *allowed: str) -> None:
        """Wait until nobody has anything to do for it any more; then its state is final."""
        eventually("it has ended", lambda: self._result(tried).ready() and not self.shop.active(tried.task_id))
        fate = FATES[self._result(tried).state]
        assert fate in allowed
        tried.fate = fate
        self.copies[tried.task_id] = 0


@pytest.fixture(params=["amqp", "pgbg"])
def messages(
    tmp_path_factory: pytest.TempPathFactory, dsn: str, request: pytest.FixtureRequest
) -> Iterator[type[Messages]]:
    """The rules, with two Celery workers, on brokers that soon send again what a dead one had."""
    ours = f"pgbg+{dsn}"
    broker = ours if request.param == "pgbg" else str(request.getfixturevalue("amqp_url"))
    shop = Shop(tmp_path_factory.mktemp("stateful"), broker, ours, pgbg_dsn=dsn, pgbg_sweep_interval=0.2)
    for _ in range(2):
        shop.start_worker()
    yield type("MessagesHere", (Messages,), {"dsn": dsn, "shop": shop})
    for worker in shop.workers:
        print(f"--- {worker.nodename}\n{worker.text()[-6000:]}")
    shop.close()
    close_stores()
    close_stations()


@pytest.mark.timeout(300 + 60 * ASKED)
def test_with_real_celery_workers_effects_are_there_once_for_success_and_else_not(messages: type[Messages]) -> None:
    run_machine(
        messages,
        settings=settings(
            max_examples=ASKED or 4,
            stateful_step_count=30 if ASKED else 8,
            derandomize=not ASKED,
            database=None,
            verbosity=Verbosity.debug,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
