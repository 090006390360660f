"""The shared parts of one runner's strategies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from celery_pgbg.database.sessions import Session
from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.launching.launching_session import LONG_CALL
from celery_pgbg.execution.strategies.counts import Counts
from celery_pgbg.execution.waiting.slots import SlotLine
from celery_pgbg.execution.waiting.watches import Watches
from celery_pgbg.settings import Settings
from celery_pgbg.watch import Watch

#: The largest number of launching sessions without a setting.
MOST_LAUNCHERS = 16

#: Statements in flight for each of them: a session holds twice as many handles, and the shares are not even.
_SHARE = 500


class Launchers(list[Launcher]):
    """The launching sessions of one runner; each is opened by the first call that needs it.

    Args:
        launchers: all of them.
        in_flight: returns the number of running statements; None: all launchers are always used.
    """

    def __init__(self, launchers: Iterable[Launcher], in_flight: Callable[[], int] | None = None) -> None:
        super().__init__(launchers)
        self._in_flight = in_flight
        self._next = itertools.count()

    def used(self) -> list[Launcher]:
        """The launchers among which calls choose now."""
        if self._in_flight is None:
            return self
        number = self._in_flight()
        # Two from the first statement on, because one may stall.
        return self[: max(2, -(-number // _SHARE))]

    @property
    def may_reuse(self) -> bool:
        """Whether their background workers may run more than one task, as far as known."""
        return all(launcher.may_reuse for launcher in self)

    def in_turn(self) -> list[Launcher]:
        """The used launchers, rotated by one each time."""
        used = self.used()
        first = next(self._next) % len(used)
        return used[first:] + used[:first]

    def least_busy(self) -> AbstractContextManager[Launcher]:
        """Reserve a free launcher, or wait for one."""
        return _reserved(self.in_turn)

    def first_free(self) -> AbstractContextManager[Launcher]:
        """Reserve the first free launcher, for rare calls: so no more sessions are opened than needed."""
        return _reserved(self.used)

    def likely_free(self) -> Launcher:
        """The first free launcher without a reservation, for a thread that needs another launcher meanwhile."""
        return min(self.used(), key=_busyness)


@contextmanager
def _reserved(among: Callable[[], list[Launcher]]) -> Iterator[Launcher]:
    """Reserve the least busy launcher; the thread must not wait for another one meanwhile.

    The call of another thread may stall: then another launcher is chosen.
    """
    while not (launcher := min(among(), key=_busyness)).take(LONG_CALL):
        pass
    try:
        yield launcher
    finally:
        launcher.give_back()


def _busyness(launcher: Launcher) -> int:
    """0 for a free launcher, 1 for a launcher in a call, 2 for a stalled call."""
    return launcher.is_busy + launcher.is_stalled


@dataclass
class Means:
    """Sessions, registers and settings of one runner.

    Attributes:
        settings: the ``pgbg_*`` settings.
        opener: returns a function that opens a session for a purpose.
        launchers: the launching sessions.
        start: starts the runner's threads, once; called when the server is known to let us launch.
        watches: what is waited for.
        line: the line for slots.
        counts: the counters of orders.
        standalone: the watches of statements with ``atomic=False``.
    """

    settings: Settings
    opener: Callable[[str], Callable[[], Session]]
    launchers: Launchers
    start: Callable[[], None]
    watches: Watches = field(default_factory=Watches)
    line: SlotLine = field(default_factory=SlotLine)
    counts: Counts = field(default_factory=Counts)
    standalone: list[Watch] = field(default_factory=list)
