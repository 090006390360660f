"""Threads that must not end by an error."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

#: Pauses before the work begins again, in seconds: the first, and the longest; they double.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0

_threads: weakref.WeakSet[LastingThread] = weakref.WeakSet()


class LastingThread(threading.Thread):
    """A daemon thread that survives errors: an error is logged, and the work begins again.

    Args:
        name: the thread's name.
        work: the function to run; returns when there is nothing left to do, and checks ``stopping`` now and then.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._failures = 0
        self._last_failure: str | None = None
        self.stopping = threading.Event()
        _threads.add(self)

    def stop(self) -> None:
        """End the thread; does not wait for it."""
        self.stopping.set()

    def run(self) -> None:
        """Do the work until it returns."""
        pause = _FIRST_PAUSE
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                self._work()
                return
            except BaseException as exc:
                if time.monotonic() - began > _LONGEST_PAUSE:
                    pause = _FIRST_PAUSE
                self._failures += 1
                self._last_failure = repr(exc)
                logger.critical("the thread %s has failed and restarts in %.1f s", self.name, pause, exc_info=exc)
            self.stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def describe(self) -> dict[str, Any]:
        """Describe the thread for ``inspect stats``."""
        return {
            "name": self.name,
            "alive": self.is_alive(),
            "failures": self._failures,
            "last_failure": self._last_failure,
        }


def describe_threads() -> list[dict[str, Any]]:
    """Describe, for ``inspect stats``, this process's threads that were started and not stopped."""
    ours = [thread for thread in _threads if thread.ident is not None and not thread.stopping.is_set()]
    return [thread.describe() for thread in sorted(ours, key=lambda thread: thread.name)]
