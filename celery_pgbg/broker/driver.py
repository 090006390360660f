"""Looks for messages in Celery's event loop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from typing import Any, Protocol

from celery_pgbg.broker.inlet import Inlet

#: How long an acknowledgement waits for others, in seconds.
_PATIENCE = 0.005

#: Longer waits end at a tick of this period, in seconds.
_TICK = 1.0

#: The largest number of messages delivered in one step of the loop.
_AT_ONCE = 200


class Reader(Protocol):
    """The interface of a connection that delivers messages."""

    loop: Any

    @property
    def has_message(self) -> bool:
        """Whether an inbox is not empty."""

    def deliver(self) -> bool:
        """Deliver one message. False if there is none."""


class Driver:
    """Reads, looks and delivers when the loop calls it. All methods but ``acked`` run in the loop's thread.

    Args:
        connections: the connections with this inlet.
    """

    def __init__(self, connections: Iterable[Reader]) -> None:
        self._connections = connections
        self._inlet: Inlet | None = None
        self._loop: Any = None
        self._thread: int | None = None
        self._ticks: Any = None
        self._has_timer = False
        self._filenos: list[int] = []
        self._is_scheduled = False

    def attach(self, inlet: Inlet, loop: Any) -> None:
        """Register with the loop; again after the loop was reset."""
        self.detach()
        self._inlet, self._loop, self._thread = inlet, loop, threading.get_ident()
        for fileno in (inlet.fileno(), inlet.waiting.fileno()):
            loop.add_reader(fileno, self._on_readable, inlet)
            self._filenos.append(fileno)
        # The loop may have lost its schedule.
        self._has_timer = self._is_scheduled = False
        self._ticks = loop.call_repeatedly(_TICK, self._on_tick, inlet)
        self._soon()

    def detach(self) -> None:
        """Take that back."""
        loop, self._loop, self._inlet = self._loop, None, None
        for fileno in self._filenos:
            with contextlib.suppress(Exception):
                loop.remove_reader(fileno)
        self._filenos = []
        ticks, self._ticks = self._ticks, None
        if ticks is not None:
            ticks.cancel()

    def acked(self) -> None:
        """A message was acknowledged. Any thread may call."""
        inlet = self._inlet
        if threading.get_ident() == self._thread:
            self._plan()
        elif inlet is not None:
            inlet.waiting.wake()

    def _on_readable(self, inlet: Inlet) -> None:
        if inlet is self._inlet:
            inlet.waiting.drain()
            inlet.read()
            self._step()

    def _soon(self) -> None:
        if not self._is_scheduled and self._loop is not None:
            self._is_scheduled = True
            # A call_soon within a call_soon waits for the next event, up to a second.
            self._loop.call_later(0, self._on_soon, self._inlet)

    def _on_soon(self, inlet: Inlet) -> None:
        self._is_scheduled = False
        if inlet is self._inlet:
            self._step()

    def _step(self) -> None:
        """Look for messages if it is time, deliver, and plan the next step."""
        inlet = self._inlet
        if inlet is None:
            return
        if self._is_due(inlet):
            inlet.look()
        for connection in list(self._connections):
            count = 0
            while connection.loop is not None and count < _AT_ONCE and connection.deliver():
                count += 1
        self._plan()

    def _plan(self) -> None:
        """Plan the next step: at once, after a while, or when a notification comes."""
        inlet = self._inlet
        if inlet is None or self._is_scheduled:
            return
        if self._is_due(inlet) or any(each.loop is not None and each.has_message for each in self._connections):
            self._soon()
            return
        seconds = inlet.rhythm.seconds()
        if inlet.has_acked or inlet.has_little_room():
            seconds = min(seconds, _PATIENCE)
        if seconds < _TICK and not self._has_timer:
            self._has_timer = True
            self._loop.call_later(seconds, self._on_timer, inlet)

    @staticmethod
    def _is_due(inlet: Inlet) -> bool:
        return inlet.rhythm.is_due() or inlet.capacity_has_grown()

    def _on_timer(self, inlet: Inlet) -> None:
        self._has_timer = False
        self._on_tick(inlet)

    def _on_tick(self, inlet: Inlet) -> None:
        if inlet is not self._inlet:
            return
        if inlet.has_acked and not self._is_due(inlet):
            inlet.flush()
        self._step()
