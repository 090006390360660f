"""Decides when a consumer looks for messages: after a notification, by the clock, or because it has room again."""

from __future__ import annotations

import math
import time
from enum import Enum
from typing import TypeVar

T = TypeVar("T")

#: If a message commits this much later than one with a higher id, in seconds, it is still found at once. Our own
#: commits take some milliseconds; messages of a caller's transaction are found by a full look.
LATE_SECONDS = 0.3

#: Seconds between two checks for messages of lost consumers, and for messages without a notification. Heartbeats have
#: none, and Celery gives up a Celery worker whose heartbeats do not arrive for four seconds.
TEND_SECONDS = 2.5

#: Every so many checks the cleaning is thorough.
_THOROUGH = 20

#: Seconds until one more look after falling asleep: a sender may just have found us awake.
_SOON = 0.1

#: After two notifications within this time, in seconds, and more than one message in a look, we look by the clock, and
#: senders need not notify. Not if the messages come one by one: then a sender may wait for the end of each task.
_CLOSE = 0.02

#: Pause between looks in that mode, in seconds.
_BUSY_PAUSE = 0.01

#: Pauses between looks without notifications, in seconds.
_FIRST_POLL, _LONGEST_POLL = 0.05, 1.0


class Reach(Enum):
    """How far back a look searches."""

    FULL = "from the first id on"
    LATE = "from the ids on that may have committed late"
    NEXT = "from the last taken id on, where that look took as many as it could"


class DeepLooks:
    """Decides when a look searches further back than others: rarely enough to cost little.

    Args:
        share: the largest share of the time that such looks take.
        shortest: the shortest time between two of them, in seconds, unless one is asked for.
        longest: the longest time, whatever their share.
    """

    #: The largest share of the time that those asked for take.
    _ASKED_SHARE = 0.01

    def __init__(self, share: float, shortest: float = 0.0, longest: float = math.inf) -> None:
        self._share = share
        self._shortest = shortest
        self._longest = longest
        self._usual = self._soonest = 0.0
        self._asked = math.inf

    @property
    def is_asked(self) -> bool:
        """Whether one was asked for and has not been."""
        return self._asked < math.inf

    @property
    def next(self) -> float:
        """The time of the next one."""
        return min(self._usual, self._asked)

    def is_due(self) -> bool:
        """Whether the next look is one of them."""
        return time.monotonic() >= self.next

    def ask(self) -> None:
        """Have one soon: at once, unless the last one took long and was short ago."""
        self._asked = self._soonest

    def note(self, seconds: float) -> None:
        """Note the time that one took."""
        now = time.monotonic()
        self._asked = math.inf
        self._usual = now + min(max(self._shortest, seconds / self._share), self._longest)
        self._soonest = now + seconds / self._ASKED_SHARE


class Rhythm:
    """Decides when to look; the inlet looks.

    Args:
        listens: whether notifications arrive.
        poll_interval: seconds between looks without notifications; None: longer and longer pauses.

    Attributes:
        reach: how far back this look searches.
        is_busy: whether so many messages come that we look by the clock.
    """

    def __init__(self, listens: bool, poll_interval: float | None) -> None:
        self._listens = listens
        self._poll_interval = poll_interval
        self._poll_seconds = _FIRST_POLL
        self._deep_looks = {
            Reach.FULL: DeepLooks(share=0.02, shortest=1.0),
            Reach.LATE: DeepLooks(share=0.05, longest=LATE_SECONDS),
        }
        self._started = self._next_look = self._next_tend = self._last_notified = 0.0
        self._tends = self._turns = 0
        self._rung = True
        self._notified = self._wants_full = self._has_searched = self._has_tended = self._comes_soon = False
        self.reach = Reach.FULL
        self.is_busy = False

    # --- asking --------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether it is time to look."""
        return self.seconds() <= 0

    def seconds(self) -> float:
        """Seconds until the next look."""
        now = time.monotonic()
        if self._rung or (self._notified and not self.is_busy):
            return 0.0
        return max(0.0, min(self._next_look, self._next_tend) - now)

    def tend_is_due(self) -> bool:
        """Whether to check for lost consumers and expired messages."""
        return time.monotonic() >= self._next_tend

    def tended(self) -> bool:
        """Note that the check is done; returns whether it should be thorough."""
        self._next_tend = time.monotonic() + TEND_SECONDS
        self._tends += 1
        self._has_tended = True
        return self._tends % _THOROUGH == 1

    def turned(self, items: list[T]) -> list[T]:
        """Rotate a list, so that each call begins with another element."""
        self._turns += 1
        start = self._turns % len(items) if items else 0
        return items[start:] + items[:start]

    # --- notifications ---------------------------------------------------------------------------------

    def ring(self) -> None:
        """Look at once."""
        self._rung = True

    def ring_softly(self) -> None:
        """Look at once after falling asleep, and once more soon."""
        self._rung = True
        self._next_look = time.monotonic() + _SOON

    def notified(self, is_full: bool) -> None:
        """Note a notification; ``is_full``: it is about messages with low ids."""
        self._notified = True
        self._wants_full |= is_full

    def begin(self) -> None:
        """A look begins."""
        now = time.monotonic()
        self._comes_soon = self._notified and self._listens and now - self._last_notified < _CLOSE
        if self._notified:
            self._last_notified = now
        self._has_searched = self._notified
        self._has_tended = False
        self._rung = self._notified = False
        due = (reach for reach, looks in self._deep_looks.items() if looks.is_due())
        self.reach = Reach.FULL if self._wants_full else next(due, Reach.NEXT)
        self._wants_full = False
        self._started = now

    def nothing_wanted(self) -> None:
        """The look ends: no consumer has room."""
        self.is_busy = False
        self._next_look = time.monotonic() + TEND_SECONDS

    def end(self, taken: int) -> None:
        """The look ends; it took so many messages."""
        now = time.monotonic()
        # Together with the tending, its time says nothing.
        if self.reach in self._deep_looks and not self._has_tended:
            self._deep_looks[self.reach].note(now - self._started)
        full = self._deep_looks[Reach.FULL]
        if self._has_searched and not taken and not self.is_busy and self.reach is not Reach.FULL:
            # The message of the notification may have a low id; or another consumer was quicker.
            full.ask()
        self.is_busy = (self.is_busy or self._comes_soon) and taken > 1
        if self.is_busy:
            self._next_look = now + _BUSY_PAUSE
        elif self._listens:
            if self._next_look <= now:
                # Look and check at the same time, which halves the statements of an idle consumer.
                self._next_look = max(self._next_tend, now + _SOON)
        else:
            self._poll_seconds = _FIRST_POLL if taken else min(self._poll_seconds * 2, _LONGEST_POLL)
            self._next_look = now + (self._poll_interval or self._poll_seconds)
        if full.is_asked:
            self._next_look = min(self._next_look, full.next)
