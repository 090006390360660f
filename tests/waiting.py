"""Waiting for a condition, with a deadline and a name."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: Generous: machines are slow and shared, and a test that fails by a deadline has failed anyway.
DEADLINE = 60.0

#: Between two looks, in seconds.
_PAUSE = 0.02


def eventually(what: str, condition: Callable[[], T], seconds: float = DEADLINE) -> T:
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(_PAUSE)
    return found


def be_held(file: Path) -> None:
    """Wait as long as a file is there; another one, ``.held``, tells that we do."""
    if file.exists():
        file.with_suffix(".held").touch()
    while file.exists():
        time.sleep(_PAUSE)
