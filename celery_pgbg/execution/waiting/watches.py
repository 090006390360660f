"""The attempts that this process waits for, and the delivery of their ends."""

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
        watch: the watch, with the handle.
        owner: the launcher whose session has that handle; None if another session has it.
        is_walk: whether it is a batched task, which another background worker can continue.
        may_run: whether the order was sent, and a background worker may run it, even if no answer came.
        absences: number of sweeps in a row in which its background worker, launched by another session, was absent.
        unexplained_sweeps: number of sweeps since another delivery ended its background worker without storing why.
    """

    watch: Watch
    owner: Launcher | None = None
    is_walk: bool = False
    may_run: bool = False
    absences: int = 0
    unexplained_sweeps: int = 0

    @property
    def handle(self) -> Handle | None:
        """The handle of the background worker that runs the attempt, once it is known."""
        return self.watch.handle

    @property
    def held(self) -> tuple[Launcher, Handle] | None:
        """The launcher whose session has the handle, and the handle; None if another session has it.

        Each of the two is read once, because another thread may call ``disown`` at the same time.
        """
        owner, handle = self.owner, self.watch.handle
        return None if owner is None or handle is None else (owner, handle)

    def runs_in(self, handle: Handle, owner: Launcher | None) -> None:
        """Note the background worker of the attempt, and the launcher with its handle.

        The owner is set first, so that the sweeper never treats our background worker as another session's.
        """
        self.owner = owner
        self.watch.handle = handle

    def sending(self) -> None:
        """Note that the order is being sent: it may run, until an answer says that it does not."""
        self.may_run = True

    def disown(self) -> None:
        """Watch the background worker like one that another session has launched.

        Two threads call this method: the sweeper, and the waiting thread while it cancels. No lock is needed. Both
        only clear the owner; only the waiting thread sets it, before it waits. A value that a thread has read before
        with ``held`` does no harm: a launcher reports if its session does not have the handle.
        """
        self.owner = None

    def start_over(self) -> None:
        """Forget the background worker, before another is launched."""
        self.watch.handle = None
        self.owner = None
        self.may_run = False
        self.absences = self.unexplained_sweeps = 0


class Watches:
    """The register of watches. An attempt that was delivered twice has two watches. Any thread may call."""

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
        """List the attempts of all watches."""
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
        """Deliver committed outcomes to the waiting watches."""
        for outcome in outcomes:
            for entry in self.of(outcome.key):
                deliver(entry.watch, outcome)


def deliver(watch: Watch, outcome: StoredOutcome) -> None:
    """Decode an outcome for one watch; a value that Python cannot hold is the task's error."""
    try:
        watch.deliver(outcome.ending(), outcome.pid)
    except Exception as exc:  # noqa: BLE001 - raised on, it would end the thread that listens for all
        message = f"the statement committed, but a value of its result cannot be loaded: {exc}"
        watch.deliver(Raised(ErrorReport("22000", message)), outcome.pid)
