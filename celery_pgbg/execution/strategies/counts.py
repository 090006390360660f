"""Counts of what a runner has done."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass

from celery_pgbg.outcomes import Ending


@dataclass
class Counts:
    """Counters, raised by many threads: launches, and the ends of attempts."""

    launched: int = 0
    attached: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, name: str) -> None:
        """Count one more."""
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)

    def add_ending(self, ending: Ending) -> None:
        """Count the end of an attempt; an attempt that was left running has not ended."""
        name = _NAMES.get(type(ending).__name__)
        if name is not None:
            self.add(name)

    def as_dict(self) -> dict[str, int]:
        """All counters, by name."""
        return asdict(self)


_NAMES = {"Returned": "succeeded", "Raised": "failed", "Cancelled": "cancelled", "Lost": "lost"}
