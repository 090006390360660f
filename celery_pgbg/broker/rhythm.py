"""When a consumer looks for messages: rung by notifications, by the clock, or because it can take more."""

from __future__ import annotations

import time
from typing import TypeVar

T = TypeVar("T")

#: Between two looks for what lost consumers had taken, and for messages we were not notified of, in seconds.
TEND_SECONDS = 3.0

#: Every so many of these the cleaning is thorough.
_THOROUGH = 20

#: How soon after falling asleep we look once more: a sender may just have found us awake. In seconds.
_SOON = 0.1

#: Two notifications within this time, in seconds: then we look by the clock, and senders need not notify.
_CLOSE = 0.02

#: Pause between looks meanwhile, in seconds.
_BUSY_PAUSE = 0.01

#: Pauses between looks where nothing notifies us, in seconds.
_FIRST_POLL, _LONGEST_POLL = 0.05, 1.0


class FullLooks:
    """When to look from the first id on, for messages that committed late: so often that it costs little."""

    #: Their share of the time, and their shortest distance in seconds.
    _SHARE, _SHORTEST = 0.02, 1.0

    #: One that takes no longer may happen at any time.
    _CHEAP = 0.005

    def __init__(self) -> None:
        self._next = 0.0
        self.is_cheap = True

    def is_due(self) -> bool:
        """Whether the next look is to be one."""
        return time.monotonic() >= self._next

    def note(self, seconds: float) -> None:
        """Take note of how long one took."""
        self.is_cheap = seconds <= self._CHEAP
        self._next = time.monotonic() + max(self._SHORTEST, seconds / self._SHARE)


class Rhythm:
    """Decides; the inlet looks.

    Args:
        listens: notifications arrive.
        poll_interval: seconds between looks where they do not; None: longer and longer ones.

    Attributes:
        is_full: this look is to search from the first id on.
        is_busy: so many come that we look by the clock.
    """

    def __init__(self, listens: bool, poll_interval: float | None) -> None:
        self._listens = listens
        self._poll_interval = poll_interval
        self._poll_seconds = _FIRST_POLL
        self._full_looks = FullLooks()
        self._started = self._next_look = self._next_tend = self._last_notified = 0.0
        self._tends = self._turns = 0
        self._rung = True
        self._notified = self._wants_full = self._has_searched = self._has_tended = False
        self.is_full = self.is_busy = False

    # --- asking --------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether it is time to look."""
        return self.seconds() <= 0

    def seconds(self) -> float:
        """How long until then."""
        now = time.monotonic()
        if self._rung or (self._notified and not self.is_busy):
            return 0.0
        return max(0.0, min(self._next_look, self._next_tend) - now)

    def tend_is_due(self) -> bool:
        """Whether to look after lost consumers and expired messages."""
        return time.monotonic() >= self._next_tend

    def tended(self) -> bool:
        """That is being done; returns whether to be thorough."""
        self._next_tend = time.monotonic() + TEND_SECONDS
        self._tends += 1
        self._has_tended = True
        return self._tends % _THOROUGH == 1

    def turned(self, items: list[T]) -> list[T]:
        """The same, beginning with another each time."""
        self._turns += 1
        start = self._turns % len(items) if items else 0
        return items[start:] + items[:start]

    # --- being told ------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Look at once."""
        self._rung = True

    def ring_softly(self) -> None:
        """Look at once, having fallen asleep; and once more soon."""
        self._rung = True
        self._next_look = time.monotonic() + _SOON

    def notified(self, is_full: bool) -> None:
        """A notification has come; ``is_full``: for messages of low ids."""
        self._notified = True
        self._wants_full |= is_full

    def begin(self) -> None:
        """A look begins."""
        now = time.monotonic()
        if self._notified:
            self.is_busy |= self._listens and now - self._last_notified < _CLOSE
            self._last_notified = now
        self._has_searched = self._notified
        self._has_tended = False
        self._rung = self._notified = False
        self.is_full = self._wants_full or self._full_looks.is_due()
        self._wants_full = False
        self._started = now

    def nothing_wanted(self) -> None:
        """The look ends: no consumer can take anything."""
        self.is_busy = False
        self._next_look = time.monotonic() + TEND_SECONDS

    def end(self, took: bool) -> None:
        """The look ends."""
        now = time.monotonic()
        if self.is_full:
            # Together with the tending, its time says nothing.
            if not self._has_tended:
                self._full_looks.note(now - self._started)
        elif self._has_searched and not took and not self.is_busy and self._full_looks.is_cheap:
            # What we were notified of may have a low id; or another consumer was quicker.
            self._wants_full = self._rung = True
        self.is_busy &= took
        if self.is_busy:
            self._next_look = now + _BUSY_PAUSE
        elif self._listens:
            if self._next_look <= now:
                # Both at once, which halves what an idle consumer asks.
                self._next_look = max(self._next_tend, now + _SOON)
        else:
            self._poll_seconds = _FIRST_POLL if took else min(self._poll_seconds * 2, _LONGEST_POLL)
            self._next_look = now + (self._poll_interval or self._poll_seconds)
