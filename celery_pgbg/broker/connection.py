"""A connection, as kombu sees it; all connections of a process share two sessions."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import psycopg

from celery_pgbg.broker.channel import Channel
from celery_pgbg.broker.inlet import Inlet
from celery_pgbg.broker.outlet import Outlet
from celery_pgbg.broker.station import Station
from celery_pgbg.errors import SessionLost


class BrokerConnection:
    """One of kombu's connections.

    Attributes:
        client: kombu's ``Connection``.
        loop: the event loop that reads for it; None: ``drain_events`` reads.
    """

    def __init__(self, station: Station, client: Any) -> None:
        self._station = station
        self._pid = os.getpid()
        self._inlet: Inlet | None = None
        self._closed = False
        self.client = client
        self.channels: list[Channel] = []
        self.loop: Any = None

    @property
    def connected(self) -> bool:
        """Whether its sessions are open, as far as known."""
        return not self._closed and self._pid == os.getpid() and (self._inlet is None or self._inlet.lost is None)

    @property
    def outlet(self) -> Outlet:
        """The sending side.

        Raises:
            SessionLost: the connection is closed.
        """
        self._check()
        return self._station.outlet

    @property
    def inlet(self) -> Inlet:
        """The receiving side.

        Raises:
            SessionLost: its session is over; or there is none, so no message was taken.
        """
        self._check()
        if self._inlet is None or self._inlet.lost is not None:
            raise SessionLost(
                f"the broker's session is over: {self._inlet.lost if self._inlet else 'it was not opened'}"
            )
        return self._inlet

    def open_inlet(self) -> Inlet:
        """Open the receiving session, unless it is open.

        Raises:
            SessionLost: it cannot be opened, or is over.
        """
        self._check()
        if self._inlet is None:
            self._inlet = self._station.open_inlet(self)
        return self.inlet

    def _check(self) -> None:
        if self._closed or self._pid != os.getpid():
            raise SessionLost("the connection to the broker is closed")

    # --- channels --------------------------------------------------------------------------------------

    def channel(self) -> Channel:
        """Make a channel."""
        self._check()
        made = Channel(self)
        self.channels.append(made)
        return made

    def close_channel(self, channel: Channel) -> None:
        """Called by a closing channel: give back its messages, and end its subscriptions."""
        with contextlib.suppress(ValueError):
            self.channels.remove(channel)
        inlet = self._inlet
        if inlet is None or inlet.lost is not None or self._pid != os.getpid():
            channel.leave()
            return
        with contextlib.suppress(SessionLost, psycopg.Error):
            inlet.leave(channel)
            self._station.close_idle_inlet()

    def close(self) -> None:
        """Close all channels."""
        for channel in list(self.channels):
            channel.close()
        self._leave()

    def abandon(self) -> None:
        """Forget everything, as after a fork: the sessions belong to the parent."""
        for channel in list(self.channels):
            channel.abandon() if self._pid != os.getpid() else channel.close()
        self._leave()

    def _leave(self) -> None:
        self._closed = True
        self.channels.clear()
        self.loop = None
        if self._pid == os.getpid():
            self._station.leave(self)

    # --- receiving -----------------------------------------------------------------------------------------

    @property
    def has_unacked(self) -> bool:
        """Whether a channel has unacknowledged messages."""
        return any(channel.has_unacked for channel in list(self.channels))

    def forget_inlet(self) -> None:
        """The receiving session was closed, because no channel consumed."""
        self._inlet = None

    @property
    def has_message(self) -> bool:
        """Whether an inbox is not empty."""
        return any(channel.inbox for channel in self.channels)

    def deliver(self) -> bool:
        """Deliver one message. False if there is none."""
        return any(channel.deliver() for channel in list(self.channels))

    def read_by(self, loop: Any) -> None:
        """Let an event loop read; None: ``drain_events`` reads."""
        self.loop = loop
        if loop is not None and self._inlet is not None:
            self._station.open_inlet(self)

    def keep(self) -> None:
        """Send acknowledgements and renew a lease while no look for messages takes place."""
        if self._inlet is not None and self._inlet.lost is None:
            self._inlet.flush()
            self._inlet.tend_if_due()

    def acked(self) -> None:
        """Called after an acknowledgement.

        An event loop sends it soon, together with others; without a loop it is sent now.
        """
        if self.loop is None:
            if self.inlet.has_acked:
                self.inlet.flush()
        else:
            self._station.driver.acked()

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for one message and deliver it.

        Raises:
            TimeoutError: no message came within this time, in seconds.
            SessionLost: the session is over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.deliver():
            remaining = 1.0 if deadline is None else deadline - time.monotonic()
            if self._inlet is None:
                self._check()
                if remaining <= 0:
                    raise TimeoutError("timed out")
                time.sleep(min(remaining, 1.0))
                continue
            inlet = self.inlet
            if inlet.rhythm.is_due() or inlet.capacity_has_grown():
                inlet.look()
                if self.has_message:
                    continue
            if remaining <= 0 and deadline is not None:
                raise TimeoutError("timed out")
            seconds = min(max(remaining, 0.0), inlet.rhythm.seconds())
            inlet.waiting.wait(inlet.fileno(), seconds, lambda: self.has_message)
            inlet.read()
