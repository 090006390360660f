"""Children of prefork, which may be killed at any moment: none holds a lock then that its parent waits for."""

from __future__ import annotations

from functools import wraps
from typing import Any

from billiard.pool import Worker


class _WithoutLock:
    """A counter in shared memory, read without its lock. A number is read at once or not at all."""

    def __init__(self, counter: Any) -> None:
        self._number = counter.get_obj()

    @property
    def value(self) -> int:
        """What it counts."""
        number: int = self._number.value
        return number


def read_counters_without_lock() -> None:
    """Keep a Celery worker on prefork from waiting for ever for a child that it has killed itself. All versions.

    A child that ends looks ten times a second whether its parent has read its results: at a counter, whose lock the
    parent takes for each result. At a hard time limit the parent sends SIGTERM, and SIGKILL a tenth of a second later,
    just when the child looks again. One killed with the lock keeps it, and the parent stops for good at the child's
    last result. A SQL task always leaves one, since its statement is stopped first.
    """
    wait = Worker._ensure_messages_consumed

    @wraps(wait)
    def wait_without_lock(self: Any, *args: Any, **options: Any) -> Any:
        if hasattr(self.on_ready_counter, "get_obj"):
            self.on_ready_counter = _WithoutLock(self.on_ready_counter)
        return wait(self, *args, **options)

    Worker._ensure_messages_consumed = wait_without_lock
