"""Waiting for a condition, with a deadline and a name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds; generous, since a test that waits for so long has failed anyway.
DEADLINE = 30.0

_PAUSE = 0.02


def wait_until(what: str, condition: Callable[[], T], timeout: float = DEADLINE) -> T:
    """Wait until a condition holds, and return its value.

    Args:
        what: name of the condition, for the message.
        condition: called again and again until it gives something true.
        timeout: seconds.

    Raises:
        AssertionError: it did not hold in time.
    """
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(_PAUSE)
    return found
