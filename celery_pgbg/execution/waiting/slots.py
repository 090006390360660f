"""The line for a free background worker slot of the server."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from celery_pgbg.database.backoff import Backoff
from celery_pgbg.watch import Watch

logger = logging.getLogger(__name__)

#: Longest wait of the first in line before it tries again, in seconds. Only a try notices a slot that another process
#: frees.
_LONGEST_WAIT = 0.5

#: Shortest wait while statements of others end, so that their ends do not cause endless tries.
_SHORTEST_WAIT = 0.05

#: How long the others wait before they check whether they are first, if nothing wakes them.
_WAIT_OF_OTHERS = 5.0


class SlotLine:
    """The line of this process: only the first in line tries to launch, so the oldest goes first."""

    def __init__(self) -> None:
        self._line: deque[Watch] = deque()
        self._lock = threading.Lock()
        # Short at first, because an outcome is announced some milliseconds before its process leaves the slot. A try
        # that comes too early must not lose the slot to a later task.
        self._backoff = Backoff(0.004, _LONGEST_WAIT)
        self._last_try = 0.0

    def __len__(self) -> int:
        return len(self._line)

    def join(self, watch: Watch) -> bool:
        """Take the last place, unless the line is empty or the watch is already in line.

        Returns:
            Whether the watch may try to launch now.
        """
        with self._lock:
            if self._line and watch not in self._line:
                self._line.append(watch)
            return not self._line or self._line[0] is watch

    def wait(self, watch: Watch) -> None:
        """Wait until trying (again) may succeed; an interruption of the watch ends the wait early."""
        with self._lock:
            if not self._line:
                logger.warning(
                    "no free background worker slot in the server (max_worker_processes): SQL tasks wait for one"
                )
            if watch not in self._line:
                self._line.append(watch)
            is_first = self._line[0] is watch
            if is_first:
                self._last_try = time.monotonic()
            seconds = self._backoff.next() if is_first else _WAIT_OF_OTHERS
        watch.wait(seconds)

    def leave(self, watch: Watch) -> None:
        """Leave the line: launched, failed or interrupted. The next may try at once."""
        with self._lock:
            if watch in self._line:
                self._line.remove(watch)
                self._nudge_first()

    def nudge(self) -> None:
        """One of our statements ended: let the first in line try at once."""
        with self._lock:
            self._nudge_first()

    def nudge_soon(self) -> None:
        """A statement of any Celery worker ended: let the first in line try, like the other notified processes.

        A busy process learns at once of slots that its own statements leave. Without this method, a process without
        statements would learn of slots only by trying now and then. Not more often than every ``_SHORTEST_WAIT``.
        """
        with self._lock:
            if self._line and time.monotonic() - self._last_try > _SHORTEST_WAIT:
                self._nudge_first()

    def _nudge_first(self) -> None:
        self._backoff.reset()
        if self._line:
            self._line[0].nudge()
