"""Calls functions at given times, many of them from one thread."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from celery_pgbg.lasting import LastingThread

#: Up to this number, cancelled entries may stay in the heap until their time.
_FEW = 64


class Deadline:
    """One entry. A cancelled entry holds no function, and leaves the heap together with other cancelled entries."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call


class Deadlines:
    """One thread, started with the first deadline. It calls each function at its time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Deadline]] = []
        self._taken_back = 0
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, seconds: float, call: Callable[[], None]) -> Deadline:
        """Call a function in so many seconds, unless the entry is taken back."""
        deadline = Deadline(call)
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), deadline))
            if self._thread is None:
                self._thread = LastingThread("pgbg-deadlines", self._run)
                self._thread.start()
            if self._heap[0][2] is deadline:
                self._changed.notify()
        return deadline

    def take_back(self, deadline: Deadline) -> None:
        """Cancel an entry; a call that has begun continues. The heap stays small, however long the times."""
        with self._changed:
            if deadline.call is None:
                return
            deadline.call = None
            self._taken_back += 1
            if self._taken_back > max(_FEW, len(self._heap) // 2):
                self._heap = [entry for entry in self._heap if entry[2].call is not None]
                heapq.heapify(self._heap)
                self._taken_back = 0

    def _run(self) -> None:
        while True:
            call = self._next()
            if call is not None:
                call()

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next entry and take it off the heap; None if it was taken back."""
        with self._changed:
            while not self._heap or self._heap[0][0] > time.monotonic():
                self._changed.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
            deadline = heapq.heappop(self._heap)[2]
            call, deadline.call = deadline.call, None
            if call is None:
                self._taken_back -= 1
            return call
