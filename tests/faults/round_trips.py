"""Faults at each round trip of one delivery to the server, one after another."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import psycopg
import pytest

from celery_pgbg.database import sessions
from celery_pgbg.execution.runner import Runner
from celery_pgbg.orders import Order
from celery_pgbg.watch import Watch

#: All sessions are made by this class, and wait for the server here.
_SESSION: Any = sessions._BoundedSession  # pyright: ignore[reportPrivateUsage]

#: When a fault comes: before the request, or when the server has done what was asked.
Moment = Literal["before", "after"]


class RoundTrips:
    """Counts the round trips of one delivery's thread; at one of them, does something."""

    def __init__(self, at: int, moment: Moment, fault: Callable[[Any], None]) -> None:
        self._at = at
        self._moment = moment
        self._fault = fault
        self._number = 0
        self._thread = 0
        #: False as long as round trips do not count.
        self.counts = True

    @property
    def came(self) -> bool:
        """Whether the delivery has had so many round trips."""
        return self._number >= self._at

    def deliver(self, runner: Runner, asked: Order, watch: Watch) -> tuple[threading.Thread, list[Any]]:
        """Let a runner take an order in a thread, whose round trips count."""
        endings: list[Any] = []

        def run() -> None:
            self._thread = threading.get_ident()
            endings.append(runner.run(asked, watch))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread, endings

    def wait(self, session: Any, call: Callable[[], Any]) -> Any:
        """Make one round trip, and the fault with it if it is time."""
        if threading.get_ident() != self._thread or not self.counts:
            return call()
        self._number += 1
        if self._number != self._at:
            return call()
        if self._moment == "before":
            self._fault(session)
            return call()
        answer = call()
        self._fault(session)
        if session.closed:
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return answer


@contextmanager
def round_trips(
    monkeypatch: pytest.MonkeyPatch, at: int, moment: Moment, fault: Callable[[Any], None]
) -> Iterator[RoundTrips]:
    """Make a fault at the round trip with this number, from 1, of a delivery."""
    trips = RoundTrips(at, moment, fault)
    wait = _SESSION.wait

    def counted(session: Any, *args: Any, **kwargs: Any) -> Any:
        return trips.wait(session, lambda: wait(session, *args, **kwargs))

    with monkeypatch.context() as patched:
        patched.setattr(_SESSION, "wait", counted)
        yield trips


def cut(session: Any) -> None:
    """Cut a session's connection, as a network does; the server has done what it was asked before."""
    with socket.socket(fileno=os.dup(session.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def cut_after(session: Any) -> None:
    """The same, and the answer is lost."""
    cut(session)
    session.pgconn.finish()
