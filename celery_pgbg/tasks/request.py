"""Celery's request for SQL tasks: the server decides about a revoke, and a shutdown is not a revoke."""

from __future__ import annotations

from typing import Any, ClassVar

import psycopg
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.platforms import signals
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request
from celery.worker.state import task_ready

from celery_pgbg.errors import PgbgError
from celery_pgbg.execution.control.stopping import Stop
from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import StopReason
from celery_pgbg.runners import runner_of
from celery_pgbg.tasks import last_steps
from celery_pgbg.tasks.calls import HEADER, options_of_call
from celery_pgbg.tasks.fields import checked
from celery_pgbg.tasks.interruptible import Interruptible
from celery_pgbg.tasks.taskrun import StatementLeft, StatementLost, StatementRevoked, TaskRun
from celery_pgbg.watch import Interruption

logger = get_logger(__name__)


class SQLRequest(Request):
    """A request for a SQL task, in our pool or in any other."""

    #: Our pool, if it runs this Celery worker's tasks; see ``for_pool``.
    our_pool: ClassVar[Interruptible | None] = None

    _revoke_signal: int | None = None

    #: Whether a hard time limit has stopped the statement.
    _is_stopped = False

    #: Set if the message is to be discarded, but an earlier delivery may have left its statement running: the reason,
    #: and whether the reason is expiry. The pool then stops the statement before anything is announced.
    stops_first: tuple[str, bool] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if replaced := checked(self._request_dict, self._task.max_retries):
            self._request_dict.update(replaced)
            self.time_limits = self._request_dict.get("timelimit") or (None, None)
        self._request_dict[last_steps.FIELD] = getattr(self._message, "row", None)

    def revoked(self) -> bool:
        """Discard a revoked or expired message, unless a statement may have to be stopped first."""
        return bool(super().revoked()) and self.stops_first is None

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if not terminated and self.our_pool is not None and (self.delivery_info or {}).get("redelivered"):
            self.stops_first = reason, expired
            return
        super()._announce_revoked(reason, terminated, signum, expired)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Stop the statement.

        REVOKED is announced when the statement is known to be gone, see ``on_failure``. If the statement had finished,
        its outcome stands and nothing is revoked.
        """
        self._revoke_signal = signals.signum(signal or "TERM")
        if self.our_pool is None:
            self._terminate_elsewhere(pool, signal)
            return
        if self.our_pool.interrupt(self.id, Interruption.REVOKE):
            return
        if self.time_start is None:
            super().terminate(pool, signal)
        else:
            logger.info("Task %s[%s] is not revoked: it has finished", self.name, self.id)

    def _terminate_elsewhere(self, pool: Any, signal: Any) -> None:
        """Stop a statement through the server, while another pool's process, thread or greenlet waits for it.

        The waiting process notices and reports the end. If no statement runs yet, none will run; Celery then also
        terminates in its own way, because the task's body may be running.
        """
        if self.time_start is None:
            # Celery calls again once the task is accepted.
            super().terminate(pool, signal)
            return
        stopped = self._stop_statement("revoked")
        if stopped == "finished":
            logger.info("Task %s[%s] is not revoked: it has finished", self.name, self.id)
        elif stopped != "stopped":
            super().terminate(pool, signal)

    def _stop_statement(
        self, reason: StopReason, message: str | None = None, may_run_again: bool = False
    ) -> Stop | None:
        """Stop the attempt in the server, whichever process waits for it. None if the server cannot be reached."""
        attempt = Attempt.of_message(self.id, self.request_dict.get("retries"))
        try:
            runner = runner_of(self.app, options_of_call(self.task, self.request_dict.get(HEADER)).database)
            return runner.stop(attempt, reason, message, may_run_again)
        except (PgbgError, psycopg.Error) as exc:
            logger.error("Task %s[%s]: its statement could not be stopped, and runs on: %s", self.name, self.id, exc)
            return None

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Leave no statement behind if a hard time limit ended the process that waited for it."""
        if not soft:
            self._stop_at_time_limit(timeout)
        super().on_timeout(soft, timeout)
        if not soft and self._is_returned_at_timeout and not self.acknowledged:
            # Celery before 5.7 does that while handling the failure, which does not follow here.
            self.reject(requeue=True)

    def _stop_at_time_limit(self, timeout: float) -> None:
        """Stop, once, the statement that another pool's process or greenlet waited for.

        After that the statement may run again elsewhere.
        """
        # A cold shutdown of prefork ends the waiting process in the same way, but must not stop the statement.
        if self._is_stopped or self.our_pool is not None or state.should_terminate:
            return
        self._is_stopped = True
        may_run_again = self.task.atomic and self._is_returned_at_timeout
        self._stop_statement("time limit", f"its time limit of {timeout} s has passed", may_run_again)

    @property
    def _is_returned_at_timeout(self) -> bool:
        """Whether the message goes back to its queue after a hard time limit, to run again."""
        task = self.task
        # Celery before 5.7 has a single option for time limits and failures.
        is_acknowledged = getattr(task, "acks_on_timeout", task.acks_on_failure_or_timeout)
        return bool(task.acks_late and not is_acknowledged)

    def cancel(self, pool: Any, signal: Any = None, **options: Any) -> None:
        """Leave the task, for a shutdown or a lost broker connection. The statement may run on.

        Celery 5.4 and 5.5 do not have ``emit_retry``.
        """
        if self.our_pool is None:
            super().cancel(pool, signal, **options)
            return
        self.our_pool.leave(self.id)
        self._already_cancelled = True
        task_ready(self)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Describe the task for ``inspect``, with both parts of the background worker's handle: PID and cookie."""
        return {**super().info(safe), "cookie": self._cookie()}

    def _cookie(self) -> int | None:
        run: TaskRun | None = self._apply_result and self._apply_result() if self.our_pool else None
        handle = run.watch.handle if run is not None and run.watch is not None else None
        return None if handle is None else handle.cookie

    def send_event(self, type: str, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        """Add the PID of the background worker to events; an event's own ``pid`` is the Celery worker's."""
        if type == "task-started":
            fields["worker_pid"] = self.worker_pid
        return super().send_event(type, **fields)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Handle our own kinds of ends, and a time limit of prefork; Celery handles all others."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, StatementRevoked):
            if not self._already_revoked:
                reason, expired = self.stops_first or ("terminated", False)
                self._announce_revoked(reason, True, self._revoke_signal, expired)
            return None
        if isinstance(error, StatementLeft) and (self.task.atomic or not self.acknowledged):
            return self.reject(requeue=True)
        if isinstance(error, StatementLost) and state.should_terminate and not self.acknowledged:
            return self.reject(requeue=True)
        if isinstance(error, (StatementLeft, StatementLost)):
            return self._on_lost(error, send_failed_event)
        if isinstance(error, TimeLimitExceeded) and self._is_returned_at_timeout:
            # Prefork reports the failure before the time limit, and Celery puts the message back at once.
            self._stop_at_time_limit(*error.args)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def _on_lost(self, error: StatementLeft | StatementLost, send_failed_event: bool) -> Any:
        """Report the loss: if the message is not delivered again, no other code reports the task's end."""
        left = f"{self.name}[{self.id}]: {error}; the statement ran outside a transaction and may have partly completed"
        try:
            raise WorkerLostError(str(error) if isinstance(error, StatementLost) else left)
        except WorkerLostError:
            return super().on_failure(ExceptionInfo(), send_failed_event, return_ok=False)


def with_our_ends(request_class: type[Request]) -> type[SQLRequest]:
    """Put a task's own request class on top of ours: its methods come first, and their ``super()`` is ours."""
    if issubclass(request_class, SQLRequest):
        return request_class
    return type(request_class.__name__, (request_class, SQLRequest), {})


def for_pool(pool: Any, request_class: type[SQLRequest]) -> type[SQLRequest]:
    """Make the request class for a Celery worker with this pool; the class knows the pool if the pool is ours.

    Only this method decides whether our pool runs a task.
    """
    our_pool = pool if isinstance(pool, Interruptible) else None
    if request_class.our_pool is our_pool:
        return request_class
    return type(request_class.__name__, (request_class,), {"our_pool": our_pool})
