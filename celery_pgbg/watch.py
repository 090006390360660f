"""One thread's wait for the end of an attempt, and the interruptions of that wait."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable

from celery_pgbg.handles import Attempt, Handle
from celery_pgbg.outcomes import Ending


class Interruption(enum.Enum):
    """Why a wait is interrupted. All interruptions but ``DETACH`` cancel the statement."""

    REVOKE = "revoke"
    SOFT_TIME_LIMIT = "soft time limit"
    HARD_TIME_LIMIT = "hard time limit"
    SHUTDOWN = "shutdown"
    DETACH = "detach"


class Watch:
    """One thread's wait for the end of an attempt; other threads deliver the end or interrupt.

    Args:
        attempt: the attempt to wait for.
        on_accepted, on_progress: see ``begin``.
    """

    def __init__(
        self,
        attempt: Attempt,
        on_accepted: Callable[[int], None] = lambda pid: None,
        on_progress: Callable[[int | None, str | None], None] = lambda percent, message: None,
    ) -> None:
        self.attempt = attempt
        #: The PID that was last reported as accepted.
        self.pid: int | None = None
        #: The handle of the background worker that runs the attempt, once known; any thread may set it.
        self.handle: Handle | None = None
        #: PID of the background worker that delivered the end; 0 if none did.
        self.ended_in = 0
        self.progress: tuple[int | None, str | None] | None = None
        #: Messages of a statement with ``atomic=False``, as severity and text, once it has ended.
        self.notices: list[tuple[str, str]] = []
        #: Called at once when an interruption is accepted, in the interrupting thread.
        self.on_interrupt: Callable[[Interruption], None] = lambda interruption: None
        self._on_accepted = on_accepted
        self._on_progress = on_progress
        self._has_progress = False
        self._ending: Ending | None = None
        self._interruption: Interruption | None = None
        self._nudged = False
        self._changed = threading.Condition()

    def begin(self, on_accepted: Callable[[int], None], on_progress: Callable[[int | None, str | None], None]) -> None:
        """Begin to watch, in the waiting thread, before the statement runs; interruptions may have come already.

        Args:
            on_accepted: called once, with the PID of the background worker, as soon as it is known.
            on_progress: called in the waiting thread, with percent and message; each is None if unknown.
        """
        self._on_accepted, self._on_progress = on_accepted, on_progress
        # A task with its own code may run several statements, one after another.
        self.start_over()

    def accept(self, pid: int) -> None:
        """Report which process runs the attempt; only the first call counts as acceptance."""
        first, self.pid = self.pid is None, pid
        if first:
            self._on_accepted(pid)

    def show(self, percent: int | None, message: str | None) -> bool:
        """Note the statement's progress, and wake the waiting thread. False if nothing is new."""
        with self._changed:
            if self.progress == (percent, message):
                return False
            self.progress = percent, message
            self._has_progress = self._nudged = True
            self._changed.notify_all()
            return True

    def pass_progress_on(self) -> None:
        """Report progress, in the waiting thread, before it looks for the end: so no report comes after the end."""
        with self._changed:
            progress, has_progress, self._has_progress = self.progress, self._has_progress, False
        if has_progress and progress is not None and self._ending is None:
            self._on_progress(*progress)

    def deliver(self, ending: Ending, pid: int = 0) -> None:
        """Deliver the end, and the PID of the background worker that had it, if any. Only the first end counts."""
        with self._changed:
            if self._ending is None:
                self._ending, self.ended_in = ending, pid
                self._changed.notify_all()

    def interrupt(self, interruption: Interruption) -> bool:
        """Ask the waiting thread to stop the statement, or for ``DETACH`` to leave it running.

        Returns:
            False if the end or another interruption came first.
        """
        with self._changed:
            if self._ending is not None or self._interruption is not None:
                return False
            self._interruption = interruption
            self._changed.notify_all()
        self.on_interrupt(interruption)
        return True

    @property
    def interruption(self) -> Interruption | None:
        """The interruption, if any."""
        return self._interruption

    @property
    def ending(self) -> Ending | None:
        """The end, if it has come."""
        return self._ending

    def start_over(self) -> None:
        """Take an end back, before any code acted on it, because the attempt is launched again."""
        with self._changed:
            self._ending = None

    def nudge(self) -> None:
        """Wake the waiting thread without an end or an interruption."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def wait_for_end(self, seconds: float | None = None) -> Ending | None:
        """Wait for the end, and ignore interruptions. None if the end did not come in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._ending is not None, seconds)
            return self._ending

    def wait(self, seconds: float | None = None) -> Ending | Interruption | None:
        """Wait for the end or an interruption; the end has precedence. None if nudged, or if neither came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._ending or self._interruption or self._nudged, seconds)
            self._nudged = False
            return self._ending or self._interruption
