"""The reusable background workers of one launching session."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from celery_pgbg.handles import Handle

#: How long the handle of an ended background worker is kept, so that its task's error can still be read, in seconds.
_KEPT_SECONDS = 5.0


class ReusableWorkers:
    """The handles of reusable background workers, until they have ended. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[Handle, str] = {}
        self._ended_at: dict[Handle, float] = {}

    def __contains__(self, handle: Handle) -> bool:
        return handle in self._pools

    def add(self, handle: Handle, pool: str) -> None:
        """Add a background worker that was launched for the orders of this pool."""
        with self._lock:
            self._pools[handle] = pool

    def pools(self) -> list[str]:
        """The pools whose orders they take."""
        with self._lock:
            return sorted(set(self._pools.values()))

    def discard(self, handle: Handle) -> None:
        """Forget a handle that another caller detaches."""
        with self._lock:
            self._pools.pop(handle, None)
            self._ended_at.pop(handle, None)

    def take_ended(self, states: Mapping[Handle, str]) -> list[Handle]:
        """Forget background workers that ended some seconds ago.

        Args:
            states: the states of all handles of the session; background workers without a state are forgotten too.

        Returns:
            The handles to detach.
        """
        now = time.monotonic()
        with self._lock:
            for handle in list(self._pools):
                if states.get(handle) != "running":
                    self._ended_at.setdefault(handle, now)
            done = [handle for handle, at in self._ended_at.items() if now - at >= _KEPT_SECONDS]
            for handle in done:
                del self._ended_at[handle], self._pools[handle]
            return [handle for handle in done if handle in states]

    def clear(self) -> None:
        """The launching session is gone, and all handles with it."""
        with self._lock:
            self._pools.clear()
            self._ended_at.clear()
