"""Which attempts this process waits for, and the handing over of their ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.handles import Attempt, Handle
from celery_pgbg.outcomes import ErrorReport, Raised
from celery_pgbg.watch import Watch

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Entry:
    """One watch in the register.

    Attributes:
        watch: the wait; it has the handle.
        owner: the launcher whose session has that handle, None where another session has it.
        is_walk: of a batched task, which another background worker can go on with.
        may_run: it was placed, and whether a background worker has taken it is not known.
        absences: in how many sweeps on end its background worker, launched by another session, was not there.
    """

    watch: Watch
    owner: Launcher | None = None
    is_walk: bool = False
    may_run: bool = False
    absences: int = 0

    @property
    def handle(self) -> Handle | None:
        """The handle of the background worker that runs the attempt, once it is known."""
        return self.watch.handle

    @property
    def held(self) -> tuple[Launcher, Handle] | None:
        """The launcher whose session has the handle, and the handle. None where another session has it.

        Each of the two is read once: another thread may call ``disown`` meanwhile.
        """
        owner, handle = self.owner, self.watch.handle
        return None if owner is None or handle is None else (owner, handle)

    def runs_in(self, handle: Handle, owner: Launcher | None) -> None:
        """Note which background worker runs the attempt, and whose session has its handle.

        The owner first, so that the sweeper never takes a background worker of ours for another's.
        """
        self.owner = owner
        self.watch.handle = handle

    def disown(self) -> None:
        """Look after the background worker as after one that another session has launched.

        Two threads call this: the sweeper, and the waiting thread while it cancels. No lock is needed. Both only clear
        the owner; only the waiting thread sets one, before it waits. What a thread has read before, with ``held``,
        does no harm: a launcher that is asked about a handle which its session does not have says so.
        """
        self.owner = None

    def start_over(self) -> None:
        """Forget the background worker, before another is launched."""
        self.watch.handle = None
        self.owner = None
        self.absences = 0


class Watches:
    """The register of watches. An attempt that was delivered twice has two. Any thread may call."""

    def __init__(self) -> None:
        self._entries: dict[Attempt, list[Entry]] = {}
        self._lock = threading.Lock()

    def add(self, watch: Watch, is_walk: bool = False) -> Entry:
        """Register a watch, before its launch, so that no outcome is missed."""
        entry = Entry(watch, is_walk=is_walk)
        with self._lock:
            self._entries.setdefault(watch.attempt, []).append(entry)
        return entry

    def remove(self, entry: Entry) -> None:
        """Forget a watch."""
        with self._lock:
            entries = self._entries[entry.watch.attempt]
            entries.remove(entry)
            if not entries:
                del self._entries[entry.watch.attempt]

    def __len__(self) -> int:
        return len(self._entries)

    def attempts(self) -> list[Attempt]:
        """List what is waited for."""
        with self._lock:
            return list(self._entries)

    def entries(self) -> list[Entry]:
        """List all watches."""
        with self._lock:
            return [entry for entries in self._entries.values() for entry in entries]

    def of(self, attempt: Attempt) -> list[Entry]:
        """List the watches of one attempt."""
        with self._lock:
            return list(self._entries.get(attempt, ()))

    def deliver(self, outcomes: Iterable[StoredOutcome]) -> None:
        """Hand committed outcomes to the watches that wait for them."""
        for outcome in outcomes:
            for entry in self.of(outcome.key):
                deliver(entry.watch, outcome)


def deliver(watch: Watch, outcome: StoredOutcome) -> None:
    """Decode an outcome for one watch; a value that Python cannot hold becomes the task's error."""
    try:
        watch.deliver(outcome.ending(), outcome.pid)
    except Exception as exc:  # noqa: BLE001 - raised on, it would end the thread that listens for all
        message = f"the statement committed, but a value of its result cannot be loaded: {exc}"
        watch.deliver(Raised(ErrorReport("22000", message)), outcome.pid)
