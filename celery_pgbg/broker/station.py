"""The two sessions of a process for one database, one to send and one to take, for all of kombu's connections."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from weakref import WeakSet

from celery_pgbg.broker.driver import Driver, Reader
from celery_pgbg.broker.inlet import Inlet
from celery_pgbg.broker.outlet import Outlet
from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.sessions import Session, connect

#: A session that lived this long, in seconds, was not lost because of a permanent refusal of the server.
_LONG = 5.0


@dataclass(frozen=True)
class Address:
    """The address of a broker and its options. Durations in seconds.

    Attributes:
        poll_interval: pause between looks; None: NOTIFY is used.
        max_deliveries: how often a message is delivered at most; None: no limit.
    """

    dsn: str
    connect_timeout: float
    answer_timeout: float
    poll_interval: float | None
    max_deliveries: int | None


class Passenger(Reader, Protocol):
    """The interface of a connection, which shares the sessions of a station."""

    @property
    def has_unacked(self) -> bool:
        """Whether there are unacknowledged messages, delivered or in the inbox."""

    def forget_inlet(self) -> None:
        """The receiving session was closed, because no connection consumed."""


class Station:
    """The sessions of one process for one address."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.RLock()
        self._inlet: Inlet | None = None
        self._connections: WeakSet[Passenger] = WeakSet()
        self.outlet = Outlet(partial(self._open_session, "sends"))
        self.driver = Driver(self._connections)
        self._last_inlet: Inlet | None = None
        self._backoff = Backoff()

    def open_inlet(self, connection: Passenger) -> Inlet:
        """Open the receiving session, unless it is open, and share it with this connection.

        If a session failed soon after it was opened, the next one is opened after a pause.
        """
        self._pause()
        with self._lock:
            if self._inlet is None or self._inlet.lost is not None:
                address = self._address
                self._inlet = Inlet(
                    partial(self._open_session, "takes"),
                    _name(),
                    address.poll_interval,
                    address.max_deliveries,
                    earlier=self._inlet.id if self._inlet is not None else None,
                )
                self._last_inlet = self._inlet
            self._connections.add(connection)
            if connection.loop is not None:
                self.driver.attach(self._inlet, connection.loop)
            return self._inlet

    def _pause(self) -> None:
        last = self._last_inlet
        if last is None or not last.has_failed:
            return
        if last.opened_at < time.monotonic() - _LONG:
            self._backoff.reset()
        else:
            # Without the lock, so that closing connections need not wait.
            time.sleep(self._backoff.next())

    @property
    def queue_ids(self) -> list[int]:
        """The queues that this process takes from."""
        with self._lock:
            return [] if self._inlet is None else self._inlet.queue_ids

    def leave(self, connection: Passenger) -> None:
        """A connection is closed."""
        with self._lock:
            self._connections.discard(connection)
        self.close_idle_inlet()

    def close_idle_inlet(self) -> None:
        """End the receiving session if no connection consumes: the server would keep notifications for it."""
        with self._lock:
            inlet = self._inlet
            if inlet is None or not inlet.is_idle or any(each.has_unacked for each in self._connections):
                return
            self._inlet = None
            for connection in list(self._connections):
                connection.forget_inlet()
            self._connections.clear()
            self.driver.detach()
        inlet.close()

    def close(self) -> None:
        """End both sessions."""
        with self._lock:
            inlet, self._inlet = self._inlet, None
            self.driver.detach()
        if inlet is not None:
            inlet.close()
        self.outlet.close()

    def _open_session(self, what: str) -> Session:
        return connect(
            self._address.dsn,
            application_name=f"pgbg broker {what} {_name()}"[:63],
            connect_timeout=self._address.connect_timeout,
            answer_timeout=self._address.answer_timeout,
        )


def _name() -> str:
    return f"{os.getpid()}@{socket.gethostname()}"


_stations: dict[tuple[int, Address], Station] = {}
_stations_lock = threading.Lock()


def station_of(address: Address) -> Station:
    """Find or make this process's station. A forked process makes its own."""
    key = (os.getpid(), address)
    with _stations_lock:
        if key not in _stations:
            _stations[key] = Station(address)
        return _stations[key]


def stations() -> list[Station]:
    """List this process's stations."""
    with _stations_lock:
        return [station for (pid, _), station in _stations.items() if pid == os.getpid()]


def close_stations() -> None:
    """End this process's sessions with brokers."""
    with _stations_lock:
        ours = [key for key in _stations if key[0] == os.getpid()]
        closing = [_stations.pop(key) for key in ours]
    for station in closing:
        station.close()


def _renew_lock() -> None:
    global _stations_lock
    _stations_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
