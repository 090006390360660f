"""Waiting for a condition, with a deadline and a name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Generous: machines are slow and shared, and a test that fails by a deadline has failed anyway.
DEADLINE = 60.0


def eventually(what: str, condition: Callable[[], T], seconds: float = DEADLINE) -> T:
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found
