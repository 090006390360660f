"""The Celery worker's event loop, seen from the pool's threads."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

logger = logging.getLogger(__name__)


class LoopWaker:
    """Wakes an idle event loop: acks are queued there, and would wait for up to a second.

    Only asynchronous transports (AMQP, Redis) have a loop; without one nothing happens here.
    """

    def __init__(self) -> None:
        self._loop: Any = None
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def register(self, loop: Any) -> None:
        """Take note of the loop, after each reconnect to the broker again."""
        self._loop = loop
        if self._ends is None:
            self._ends = socket.socketpair()
            for end in self._ends:
                end.setblocking(False)
        loop.add_reader(self._ends[0], self._on_wake)

    def wake(self) -> None:
        """Make the loop go round once. Any thread may call."""
        if self._ends is not None:
            with contextlib.suppress(BlockingIOError):
                self._ends[1].send(b".")

    def perform_queued(self) -> None:
        """Perform the acks that are queued in the loop, once it no longer runs."""
        ready = getattr(self._loop, "_ready", None)
        while ready:
            try:
                ready.pop()()
            except Exception as exc:  # noqa: BLE001 - as the loop itself does; the broker may be gone
                logger.error("an acknowledgement failed: %r", exc)

    def _on_wake(self) -> None:
        assert self._ends is not None
        with contextlib.suppress(BlockingIOError):
            while self._ends[0].recv(4096):
                pass
