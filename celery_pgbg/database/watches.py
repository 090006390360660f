"""Which attempts this process waits for, and the handing over of their ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from celery_pgbg.database.launcher import Launcher
from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.handles import Attempt, Handle
from celery_pgbg.orders import Watch
from celery_pgbg.outcomes import ErrorReport, Raised

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Entry:
    """One watch in the register.

    Attributes:
        watch: who waits.
        owner: the launcher that holds the handle, None where another session launched.
        handle: set once it is known.
    """

    watch: Watch
    owner: Launcher | None = None
    handle: Handle | None = None


class Watches:
    """The register of watches. An attempt that was delivered twice has two. Any thread may call."""

    def __init__(self) -> None:
        self._entries: dict[Attempt, list[Entry]] = {}
        self._lock = threading.Lock()

    def add(self, watch: Watch) -> Entry:
        """Register a watch, before its launch, so that no outcome is missed."""
        entry = Entry(watch)
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
        """Hand committed outcomes to those who wait for them."""
        for outcome in outcomes:
            for entry in self.of(outcome.key):
                deliver(entry.watch, outcome)


def deliver(watch: Watch, outcome: StoredOutcome) -> None:
    """Decode an outcome for one watch; a value that Python cannot hold becomes the task's error."""
    try:
        watch.deliver(outcome.ending())
    except Exception as exc:  # noqa: BLE001 - raised on, it would end the thread that listens for all
        message = f"the statement committed, but a value of its result cannot be loaded: {exc}"
        watch.deliver(Raised(ErrorReport("22000", message)))
