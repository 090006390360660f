"""Threads that wait for messages on one session: one thread watches the socket, the others wait for that thread."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable

#: The watching thread checks its state at least this often, in seconds.
_LONGEST = 1.0


class Waiting:
    """The lock of an inlet, and the wait for messages.

    Attributes:
        lock: held for each call on the session, but not while waiting.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._arrived = threading.Condition()
        self._has_leader = False
        self._ends: tuple[socket.socket, socket.socket] | None = socket.socketpair()
        for end in self._ends:
            end.setblocking(False)

    def fileno(self) -> int:
        """Becomes readable when ``wake`` was called."""
        return -1 if self._ends is None else self._ends[0].fileno()

    def wake(self) -> None:
        """Wake all waiting threads, and the event loop."""
        with self._arrived:
            self._arrived.notify_all()
            if self._ends is not None:
                with contextlib.suppress(BlockingIOError):
                    self._ends[1].send(b".")

    def drain(self) -> None:
        """Note the wake-up."""
        with self._arrived:
            if self._ends is not None:
                with contextlib.suppress(BlockingIOError):
                    while self._ends[0].recv(4096):
                        pass

    def wait(self, fileno: int, seconds: float, is_over: Callable[[], bool]) -> None:
        """Wait until the session's socket is readable, or something was put into an inbox, or the time has passed."""
        with self._arrived:
            if is_over() or self._ends is None:
                return
            if self._has_leader:
                self._arrived.wait(min(seconds, _LONGEST))
                return
            self._has_leader = True
            ours = self._ends[0]
        try:
            # Another thread has closed the session: the next call on it reports that.
            with contextlib.suppress(OSError, ValueError):
                _select([fileno, ours.fileno()], min(seconds, _LONGEST))
        finally:
            with self._arrived:
                self._has_leader = False
                self._arrived.notify_all()
        self.drain()

    def close(self) -> None:
        """Wake all for the last time."""
        self.wake()
        with self._arrived:
            if self._ends is not None:
                for end in self._ends:
                    end.close()
                self._ends = None


def _select(filenos: list[int], seconds: float) -> None:
    with selectors.DefaultSelector() as selector:
        for fileno in filenos:
            selector.register(fileno, selectors.EVENT_READ)
        selector.select(seconds)
