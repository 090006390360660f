"""Watches, deadlines and back-off, without a server."""

from __future__ import annotations

import threading
import time
import weakref

import pytest

from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.deadlines import Deadlines
from celery_pgbg.execution.waiting.watches import Watches
from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import Cancelled, Raised, Returned
from celery_pgbg.watch import Interruption, Watch


def test_the_first_end_stands() -> None:
    watch = Watch(Attempt("a"))
    watch.deliver(Returned(1))
    watch.deliver(Cancelled())
    assert watch.wait() == Returned(1)
    assert not watch.interrupt(Interruption.REVOKE)


def test_only_the_first_interruption_counts() -> None:
    watch = Watch(Attempt("a"))
    assert watch.interrupt(Interruption.DETACH)
    assert not watch.interrupt(Interruption.REVOKE)
    assert watch.wait() is Interruption.DETACH


def test_an_end_goes_before_an_interruption() -> None:
    watch = Watch(Attempt("a"))
    watch.interrupt(Interruption.REVOKE)
    watch.deliver(Returned(1))
    assert watch.wait() == Returned(1)


def test_acceptance_is_told_once() -> None:
    told: list[int] = []
    watch = Watch(Attempt("a"), told.append)
    watch.accept(7)
    watch.accept(8)
    assert (told, watch.pid) == ([7], 8)


def test_a_nudge_ends_a_wait_once() -> None:
    watch = Watch(Attempt("a"))
    threading.Timer(0.05, watch.nudge).start()
    assert watch.wait(30) is None
    assert watch.wait(0.01) is None


def test_deadlines_are_called_in_the_order_of_their_time() -> None:
    called: list[str] = []
    last = threading.Event()
    deadlines = Deadlines()
    deadlines.add(0.2, lambda: (called.append("late"), last.set()))  # type: ignore[func-returns-value, arg-type, return-value]
    deadlines.add(0.01, lambda: called.append("early"))
    assert last.wait(30)
    assert called == ["early", "late"]


def test_a_deadline_that_is_taken_back_is_not_called_and_holds_nothing() -> None:
    deadlines = Deadlines()
    held = threading.Event()
    reference = weakref.ref(held)
    deadline = deadlines.add(86_400, held.set)
    deadlines.take_back(deadline)
    deadlines.take_back(deadline)
    del held
    assert reference() is None
    soon = deadlines.add(0.1, lambda: pytest.fail("called"))
    last = threading.Event()
    deadlines.add(0.2, last.set)
    deadlines.take_back(soon)
    assert last.wait(30)


def test_deadlines_of_a_day_do_not_gather() -> None:
    deadlines = Deadlines()
    kept = [deadlines.add(86_400, threading.Event().set) for _ in range(10)]
    for _ in range(10_000):
        deadlines.take_back(deadlines.add(86_400, threading.Event().set))
    assert len(deadlines) < 200
    assert all(deadline.call for deadline in kept)


def test_back_off_grows_to_its_limit_and_begins_again() -> None:
    backoff = Backoff(1, 4)
    waits = [backoff.next() for _ in range(5)]
    assert all(
        low <= wait <= high for wait, (low, high) in zip(waits, [(0.5, 1), (1, 2), (2, 4), (2, 4), (2, 4)], strict=True)
    )
    backoff.reset()
    assert backoff.next() <= 1


def test_waiting_has_a_time_limit() -> None:
    begin = time.monotonic()
    assert Watch(Attempt("a")).wait(0.05) is None
    assert time.monotonic() - begin >= 0.04


def test_a_value_too_deep_for_python_is_the_tasks_error_and_not_the_listeners() -> None:
    watches, watch, deep = Watches(), Watch(Attempt("a")), "[" * 1_000_000
    entry = watches.add(watch)
    json_oid = 114
    outcome = StoredOutcome("a", 0, True, "value", 1, None, ["v"], [json_oid], [f"({deep})"], None, None, None)
    watches.deliver([outcome])
    watches.remove(entry)
    assert isinstance(watch.ending, Raised)
    assert "cannot be loaded" in watch.ending.report.message
