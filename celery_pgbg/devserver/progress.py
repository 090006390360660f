"""Showing progress; standard output is for the answer alone."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

#: Takes one line to show.
Say = Callable[[str], None]


def say_on_stderr(message: str) -> None:
    """Show a line in the usual place."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def ticking(say: Say, every_seconds: float = 5.0) -> Iterator[None]:
    """Show the elapsed time again and again while the block runs."""
    begin, done = time.monotonic(), threading.Event()

    def tick() -> None:
        while not done.wait(every_seconds):
            say(f"  ... {time.monotonic() - begin:.0f} s")

    threading.Thread(target=tick, daemon=True).start()
    try:
        yield
    finally:
        done.set()
