"""What a task wants executed, and who waits for its end."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from celery_pgbg.handles import Attempt, application_name
from celery_pgbg.outcomes import Ending, Returns


@dataclass(frozen=True)
class Order:
    """One attempt's statement, not yet bound to its arguments.

    Attributes:
        attempt: whose it is.
        task_name: Celery's name of the task.
        nodename: the Celery worker that asks, for people.
        query: whatever psycopg takes as a query.
        params: arguments by name, or a sequence for ``%s``; None only for a template string.
        returns: shape of the value; None for rows where there are rows, else the count.
        atomic: in a transaction with its outcome; False stands alone, outside a transaction block.
        reuse: may run in a background worker that has run another task before, and leave it to others.
        role: the role to run as, or None for the connection's own.
        settings: configuration parameters of PostgreSQL for this statement.
        max_result_bytes: size limit of the rows.
        notify: whether the outcome is announced by NOTIFY.
        ignore_result: Celery keeps no result of the task; its outcome is there nevertheless.
    """

    attempt: Attempt
    task_name: str
    nodename: str
    query: Any
    params: Mapping[str, Any] | tuple[Any, ...] | None = None
    returns: Returns | None = None
    atomic: bool = True
    reuse: bool = False
    role: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    max_result_bytes: int = 16 * 1024 * 1024
    notify: bool = True
    ignore_result: bool = False

    @property
    def application_name(self) -> str:
        """What ``pg_stat_activity`` shows."""
        return application_name(self.task_name, self.attempt)


class Interruption(enum.Enum):
    """Why a wait should not simply go on. All but ``DETACH`` cancel the statement."""

    REVOKE = "revoke"
    SOFT_TIME_LIMIT = "soft time limit"
    HARD_TIME_LIMIT = "hard time limit"
    SHUTDOWN = "shutdown"
    DETACH = "detach"


class Watch:
    """One thread's wait for the end of an attempt; other threads deliver the end or interrupt.

    Args:
        attempt: what is waited for.
        on_accepted: called once, with the PID of the background worker, as soon as it is known.
    """

    def __init__(self, attempt: Attempt, on_accepted: Callable[[int], None] = lambda pid: None) -> None:
        self.attempt = attempt
        self.pid: int | None = None
        self.cookie: int | None = None
        self.progress: tuple[int | None, str | None] | None = None
        self._on_accepted = on_accepted
        self._ending: Ending | None = None
        self._interruption: Interruption | None = None
        self._nudged = False
        self._changed = threading.Condition()

    def accept(self, pid: int, cookie: int | None = None) -> None:
        """Tell which background worker runs the attempt; only the first call counts as acceptance."""
        first, self.pid, self.cookie = self.pid is None, pid, cookie
        if first:
            self._on_accepted(pid)

    def deliver(self, ending: Ending) -> None:
        """Hand over the end. The first end stands."""
        with self._changed:
            if self._ending is None:
                self._ending = ending
                self._changed.notify_all()

    def interrupt(self, interruption: Interruption) -> bool:
        """Ask the waiting thread to stop the statement, or for ``DETACH`` to leave it running.

        Returns:
            False if the end was there already, or another interruption was first.
        """
        with self._changed:
            if self._ending is not None or self._interruption is not None:
                return False
            self._interruption = interruption
            self._changed.notify_all()
            return True

    @property
    def interruption(self) -> Interruption | None:
        """What was asked for, if anything."""
        return self._interruption

    @property
    def ending(self) -> Ending | None:
        """The end, if it is there."""
        return self._ending

    def start_over(self) -> None:
        """Take an end back before anybody acted on it: the attempt is launched again."""
        with self._changed:
            self._ending = None

    def nudge(self) -> None:
        """Make the waiting thread look again, without an end or an interruption."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def wait_for_end(self, seconds: float | None = None) -> Ending | None:
        """Wait for the end only, deaf to interruptions. None if it did not come in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._ending is not None, seconds)
            return self._ending

    def wait(self, seconds: float | None = None) -> Ending | Interruption | None:
        """Wait for the end or an interruption; the end goes first. None if nudged, or if neither came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._ending or self._interruption or self._nudged, seconds)
            self._nudged = False
            return self._ending or self._interruption
