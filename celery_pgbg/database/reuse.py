"""Background workers of one launching session that run one task after another."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from celery_pgbg.handles import Handle

#: How long ``serve_v1`` waits for another task before it ends, in seconds.
_IDLE_SECONDS = 1.0

#: How many tasks one runs before it ends: what a process keeps in memory only grows.
_LONGEST_LIFE = 1000


@dataclass
class Reusable:
    """A background worker that tasks can be handed over to.

    Attributes:
        bgworker_id: its row in ``celery_pgbg.bgworker``.
        handle: as of any other.
        turn: number of its latest task.
        idle_since: when that was known to have ended, of the monotonic clock.
    """

    bgworker_id: int
    handle: Handle
    turn: int = 1
    idle_since: float = 0.0

    @property
    def should_wait(self) -> bool:
        """Whether its second of waiting is not over yet."""
        return time.monotonic() - self.idle_since < _IDLE_SECONDS


class ReusableWorkers:
    """Which of them run a task, and which are free. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: dict[Handle, Reusable] = {}
        self._idle: list[Reusable] = []

    def __contains__(self, handle: Handle) -> bool:
        with self._lock:
            return handle in self._busy

    @property
    def has_idle(self) -> bool:
        """Whether one should still wait for a task."""
        return any(worker.should_wait for worker in self._idle[-1:])

    def add(self, worker: Reusable) -> None:
        """One has got a task."""
        with self._lock:
            self._busy[worker.handle] = worker

    def release(self, handle: Handle) -> bool:
        """Its task has left an outcome. False if no more can be handed over to it."""
        with self._lock:
            worker = self._busy.pop(handle, None)
            if worker is None or worker.turn >= _LONGEST_LIFE:
                return False
            worker.idle_since = time.monotonic()
            self._idle.append(worker)
            return True

    def take(self) -> Reusable | None:
        """Take the one that ended its task last, if it should still wait."""
        with self._lock:
            return self._idle.pop() if self.has_idle else None

    def discard(self, handle: Handle) -> bool:
        """One has ended, or was cancelled. Tells whether it was free, so that nobody else detaches its handle."""
        with self._lock:
            self._busy.pop(handle, None)
            idle = [worker for worker in self._idle if worker.handle != handle]
            was_idle = len(idle) < len(self._idle)
            self._idle = idle
            return was_idle

    def take_expired(self, idle_seconds: float = _IDLE_SECONDS) -> list[Reusable]:
        """Forget those that have been free for so long."""
        with self._lock:
            limit = time.monotonic() - idle_seconds
            expired = [worker for worker in self._idle if worker.idle_since <= limit]
            self._idle = [worker for worker in self._idle if worker.idle_since > limit]
            return expired

    def clear(self) -> None:
        """The launching session is gone, and all handles with it."""
        with self._lock:
            self._busy.clear()
            self._idle.clear()
