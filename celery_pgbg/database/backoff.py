"""Longer waits after each failure, with jitter, so that many clients do not retry in step."""

from __future__ import annotations

import random


class Backoff:
    """Seconds to wait: doubling from ``first`` to ``longest``, each time 50 - 100 % of that."""

    def __init__(self, first: float = 0.1, longest: float = 10.0) -> None:
        self._first = first
        self._longest = longest
        self._seconds = first

    def next(self) -> float:
        """Take the next wait."""
        seconds, self._seconds = self._seconds, min(self._seconds * 2, self._longest)
        return seconds * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again after a success."""
        self._seconds = self._first
