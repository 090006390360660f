"""The Celery worker's event loop, called from the pool's threads."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)


class LoopCaller:
    """Queues calls for the loop, mostly acks, from threads and signal handlers, and wakes the loop.

    Without a wake-up they wait up to a second.

    kombu's own queue takes a lock. A signal's handler may interrupt the loop while it holds that lock; then no thread
    that the handler waits for may need the lock. And kombu before 5.7 does not wake its loop. Only asynchronous
    transports (AMQP, Redis) have a loop; without a loop nothing happens here.
    """

    def __init__(self) -> None:
        self._loop: Any = None
        self._thread: int | None = None
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._calls: deque[Callable[[], Any]] = deque()
        #: Celery's consumer, once it is ready.
        self.consumer: Any = None

    def register(self, loop: Any) -> None:
        """Remember the loop; called in its own thread, and again after each reconnect to the broker."""
        if loop is not self._loop:
            self._loop = loop
            self._thread = threading.get_ident()
            loop.call_soon = partial(self._call_soon, loop.call_soon)
        if self._ends is None:
            self._ends = socket.socketpair()
            for end in self._ends:
                end.setblocking(False)
        loop.add_reader(self._ends[0], self._on_wake)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGQUIT, signal.SIGTERM):
                self._defer(number)

    def _defer(self, number: int) -> None:
        handler = signal.getsignal(number)
        if callable(handler) and not isinstance(handler, _BetweenMessages):
            signal.signal(number, _BetweenMessages(handler, self.call))

    def is_elsewhere(self) -> bool:
        """Whether there is a loop, and another thread runs it."""
        return self._loop is not None and threading.get_ident() != self._thread

    def call(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Let the loop call this soon. Any thread may call, and any signal's handler."""
        self._calls.append(partial(callback, *args, **kwargs))
        if (ends := self._ends) is not None:
            # The socket is full, which also wakes the loop, or just closed.
            with contextlib.suppress(OSError):
                ends[1].send(b".")

    def _call_soon(self, call_soon: Callable[..., Any], callback: Callable[..., Any], *args: Any) -> Any:
        if not self.is_elsewhere():
            return call_soon(callback, *args)
        self.call(callback, *args)
        return callback

    def perform(self) -> None:
        """Execute the waiting calls; in the loop's thread, also after the loop has ended."""
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception as exc:  # noqa: BLE001 - as the loop itself does; the broker may be gone
                logger.error("a call of the event loop failed: %r", exc)

    def close(self) -> None:
        """The loop has ended; called in its own thread. Calls that still come are executed only by ``perform``."""
        ends, self._ends = self._ends, None
        if ends is not None:
            self._loop.remove_reader(ends[0])
            for end in ends:
                end.close()

    def tend(self) -> None:
        """Do the loop's work while its thread waits for tasks to end: acks, and heartbeats.

        RabbitMQ drops a connection that is silent for long, and gives its unacknowledged messages to others. Up to
        Celery 5.6 a closing consumer removes its own timers, so the hub's timers have no heartbeats.
        """
        if self._loop is None or self.is_elsewhere():
            return
        self.perform()
        for connection in _connections(self.consumer):
            # The acks notice a broken connection too.
            with contextlib.suppress(Exception):
                connection.heartbeat_check()

    def _on_wake(self) -> None:
        assert self._ends is not None
        with contextlib.suppress(BlockingIOError):
            while self._ends[0].recv(4096):
                pass
        self.perform()


def _connections(consumer: Any) -> Iterator[Any]:
    """The open connections of Celery's consumer. Where the broker expects no heartbeats, a check does nothing.

    Except in our own transport: it has no heartbeats, but acknowledgements and a lease.
    """
    for owner in (consumer, getattr(consumer, "event_dispatcher", None)):
        connection = getattr(owner, "connection", None)
        # Any other access would open a closed connection.
        if connection and connection.connected:
            yield connection


class _BetweenMessages:
    """A signal's handler that is delayed if the signal comes while the loop reads from RabbitMQ.

    Celery's handler of a cold shutdown sends to RabbitMQ and reads the answer. In the middle of a message it would
    read the rest of that message as the answer, and the loop would then wait for bytes that never come. A second
    signal is not delayed, because the read may never end.
    """

    def __init__(self, handler: Callable[..., Any], call: Callable[..., None]) -> None:
        self._handler = handler
        self._call = call
        self._has_come = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._has_come or not _is_reading(frame):
            self._handler(number, frame)
        else:
            self._has_come = True
            self._call(self._handler, number, None)


def _is_reading(frame: FrameType | None) -> bool:
    frames = traceback.walk_stack(frame) if frame else ()
    return any(each.f_globals.get("__name__") == "amqp.connection" for each, _ in frames)
