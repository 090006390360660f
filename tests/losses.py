"""Ends a session of this process at a chosen round trip: before its request, or when the server has done it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal

import psycopg
import pytest
from psycopg import sql

from celery_pgbg.database.sessions import _BoundedSession
from tests.waiting import eventually

When = Literal["before", "after"]


class Losses:
    """Counts the round trips of a block, and ends the session at one of them.

    Args:
        server: a session that stays.
        number: which round trip, from 1; 0 only counts.
        when: whether the request is lost, or its answer.
        then: called at the loss.

    Attributes:
        count: how many round trips there were.
        lost: whether the session was ended.
    """

    def __init__(self, server: Any, number: int, when: When, then: Callable[[], Any] = lambda: None) -> None:
        self._server = server
        self._number = number
        self._when = when
        self._then = then
        self._lock = threading.Lock()
        self.count = 0
        self.lost = False

    def __call__(self, session: _BoundedSession, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Run a request, as psycopg does."""
        with self._lock:
            self.count += 1
            if self.count != self._number:
                return gen
        if self._when == "after":
            return self._without_answer(session, gen)
        self._server.execute("SELECT pg_terminate_backend(%s, 10000)", [session.info.backend_pid])
        self._note()
        return gen

    def _note(self) -> None:
        self.lost = True
        self._then()

    def _without_answer(self, session: _BoundedSession, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        ready: Any = None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                return end.value
            # What is not yet written, is written first.
            if int(wanted) & 2:
                ready = yield wanted
                continue
            if not self.lost:
                eventually("the server has done it", lambda: self._has_answered(session))
                _hang_up(session)
                self._note()
            ready = yield wanted

    def _has_answered(self, session: _BoundedSession) -> bool:
        if not select.select([session.fileno()], [], [], 0)[0]:
            return False
        query = "SELECT state FROM pg_stat_activity WHERE pid = %s"
        row = self._server.execute(query, [session.info.backend_pid]).fetchone()
        return row is None or row[0] != "active"


def _hang_up(session: _BoundedSession) -> None:
    """Put a dead socket in the place of the session's: the answer cannot be read any more."""
    ours, other = socket.socketpair()
    other.close()
    os.dup2(ours.fileno(), session.fileno())
    ours.close()


@contextlib.contextmanager
def losing(server: Any, number: int, when: When = "before", then: Callable[[], Any] = lambda: None) -> Iterator[Losses]:
    """Lose the session at the round trip of this number within the block."""
    losses = Losses(server, number, when, then)
    wait = _BoundedSession.wait

    def losing_wait(session: _BoundedSession, gen: Any, *args: Any, **kwargs: Any) -> Any:
        return wait(session, losses(session, gen), *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_BoundedSession, "wait", losing_wait)
        yield losses


def each_round_trip(server: Any, when: When, first: Callable[[], Any], scenario: Callable[[], Any]) -> Iterator[bool]:
    """Repeat a scenario, and lose the session at its first round trip, its second, and so on.

    Yields:
        After each, whether the session was lost; the last time it is not.
    """
    number = 0
    lost = True
    while lost:
        number += 1
        first()
        with losing(server, number, when) as losses:
            scenario()
        lost = losses.lost
        yield lost


@contextlib.contextmanager
def outage(server_dsn: str, server: Any, seconds: float) -> Iterator[Callable[[], None]]:
    """A function that ends the database's sessions but this one, and lets it refuse new ones for some time."""
    name = sql.Identifier(server.info.dbname)
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    timers: list[threading.Timer] = []
    with psycopg.connect(server_dsn, autocommit=True) as admin:

        def admit() -> None:
            admin.execute(allow.format(name, True))

        def begin() -> None:
            admin.execute(allow.format(name, False))
            server.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            timers.append(threading.Timer(seconds, admit))
            timers[0].start()

        yield begin
        for timer in timers:
            timer.join()
        admit()
