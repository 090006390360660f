"""One task in our pool, from its delivery to its callback."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import apply_target
from celery.exceptions import Ignore

from celery_pgbg.celery_patches.requests import request_of
from celery_pgbg.deadlines import Deadline
from celery_pgbg.watch import Interruption, Watch

logger = logging.getLogger(__name__)

_current = threading.local()


class StatementRevoked(Ignore):
    """Ends the tracer of a revoked task without a state; the request then announces the revocation."""


class StatementLeft(Ignore):
    """Ends the tracer of a task that this Celery worker gives up; the request puts the message back.

    It is not ``Reject``, because ``autoretry_for=(Exception,)`` would treat that as a failure.
    """


class StatementLost(Ignore):
    """Ends the tracer of a task whose background worker died; the request then handles the loss.

    ``WorkerLostError`` itself, raised inside the tracer, would be stored as a failure before Celery decides whether
    the message goes back to its queue. The exception's text says what is known.
    """


class TaskRun:
    """The return value of ``apply_async``; Celery's request keeps a weak reference to it.

    Args:
        task_id: Celery's task id.
        watch: the wait for the task's statement; None for a Python task. A SQL task is accepted once the PID of its
            background worker is known.
        target, args, kwargs: the tracer and its arguments.
        callbacks: ``callback``, ``error_callback``, ``accept_callback``, ``timeout_callback`` of the request.
    """

    def __init__(
        self,
        task_id: str,
        watch: Watch | None,
        target: Callable[..., Any],
        args: Any,
        kwargs: Any,
        callbacks: dict[str, Callable[..., Any] | None],
    ) -> None:
        self.task_id = task_id
        self.watch = watch
        self.deadlines: list[Deadline] = []
        self._call = (target, args or (), kwargs or {})
        self._callbacks = callbacks
        #: Soft and hard time limit in seconds, None for none.
        self.limits: tuple[float | None, float | None] = None, None
        self._limit_seconds = 0.0
        self._accepted = False
        # Reentrant, because a signal's handler may interrupt the thread that holds it.
        self._lock = threading.RLock()

    # --- in the thread of the task ---------------------------------------------------------------

    def execute(self, is_only_delivery: bool = True) -> None:
        """Run the tracer, and call back. Never raises.

        Args:
            is_only_delivery: whether this Celery worker has no other delivery of the task.
        """
        _current.run = self
        try:
            if not self._was_revoked(is_only_delivery):
                if self.watch is None:
                    self.accept(os.getpid())
                self._trace()
        except Exception:
            logger.exception("task %s: reporting its end to Celery failed", self.task_id)
        finally:
            _current.run = None

    def _was_revoked(self, is_only_delivery: bool) -> bool:
        """Check whether the task was revoked or has expired while it waited in our line; Celery checks only before.

        A statement that a dead delivery left behind is stopped. A statement of a living delivery is joined, because it
        began in time.
        """
        request = request_of(self._callbacks)
        if request is None or request.revoked():
            return request is not None
        if is_only_delivery and getattr(request, "stops_first", None):
            self.interrupt(Interruption.REVOKE)
        return False

    def _trace(self) -> None:
        target, args, kwargs = self._call
        outcome: list[Any] = []
        try:
            apply_target(target, args, kwargs, callback=outcome.append)
        except Exception:  # noqa: BLE001 - handed on
            # The tracer itself failed, because of a rejected message or a bug.
            self.accept(os.getpid())
            self._call_back("error_callback", ExceptionInfo())
        else:
            # Early acks depend on acceptance, also for a task that failed before its launch.
            self.accept(os.getpid())
            # The tracer does not catch ``SystemExit`` and the like; they arrive as a WorkerLostError.
            failed = isinstance(outcome[0], ExceptionInfo)
            self._call_back("error_callback" if failed else "callback", *outcome)

    def accept(self, pid: int) -> None:
        """Report to the request, once, that the task runs and in which process."""
        with self._lock:
            if self._accepted:
                return
            self._accepted = True
        self._call_back("accept_callback", pid, time.monotonic())

    def report_timeout(self, soft: bool) -> None:
        """Report to the request that a time limit ended the statement."""
        self.accept(os.getpid())
        self._call_back("timeout_callback", soft, self._limit_seconds)

    def note_that_message_has_ended(self) -> None:
        """Note that the statement's transaction has deleted the message, which is from our broker."""
        request = request_of(self._callbacks)
        if request is not None:
            request.message.ended_with_its_task()

    # --- in other threads ------------------------------------------------------------------------

    def interrupt(self, interruption: Interruption) -> bool:
        """Stop the task's statement, or leave it for ``DETACH``. The task's thread does the work.

        Returns:
            False if the task has ended, is already being interrupted, or has no statement.
        """
        return self.watch is not None and self.watch.interrupt(interruption)

    def time_out(self, soft: bool, seconds: float) -> None:
        """A time limit was reached: cancel, and call ``report_timeout`` once that has worked."""
        if self.interrupt(Interruption.SOFT_TIME_LIMIT if soft else Interruption.HARD_TIME_LIMIT):
            self._limit_seconds = seconds

    def terminate(self, signum: int) -> None:
        """Called by Celery's request after ``terminate_job``; nothing is left to do."""

    @property
    def is_sql(self) -> bool:
        """Whether a background worker runs the task."""
        return self.watch is not None

    @property
    def pid(self) -> int | None:
        """PID of the background worker, once known."""
        return self.watch.pid if self.watch else None

    def _call_back(self, name: str, *args: Any) -> None:
        callback = self._callbacks.get(name)
        if callback is not None:
            callback(*args)


def current_run(task_id: str | None) -> TaskRun | None:
    """Find the run of the calling thread, if our pool runs this very task in it."""
    run: TaskRun | None = getattr(_current, "run", None)
    return run if run is not None and run.task_id == task_id else None
