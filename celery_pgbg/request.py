"""Celery's request, taught that a revoke is settled by the server and that a shutdown is not one."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.platforms import signals
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request
from celery.worker.state import task_ready

from celery_pgbg.orders import Interruption
from celery_pgbg.pool import TaskPool
from celery_pgbg.taskrun import StatementLeft, StatementLost, StatementRevoked

logger = get_logger(__name__)


class SQLRequest(Request):
    """A request for a SQL task.

    With any other pool than ours it behaves as Celery's own.
    """

    _revoke_signal: int | None = None

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Stop the statement. REVOKED is announced when it is known to be gone, see ``on_failure``.

        Where it had finished before, its outcome stands and nothing is revoked.
        """
        if not isinstance(pool, TaskPool):
            super().terminate(pool, signal)
            return
        self._revoke_signal = signals.signum(signal or "TERM")
        if pool.interrupt(self.id, Interruption.REVOKE):
            return
        if self.time_start is None:
            super().terminate(pool, signal)
        else:
            logger.info("Task %s[%s] is not revoked: it has finished", self.name, self.id)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Celery leaves the task: a shutdown, or a lost broker connection. The statement may run on."""
        if not isinstance(pool, TaskPool):
            super().cancel(pool, signal, emit_retry)
            return
        pool.leave(self.id)
        self._already_cancelled = True
        task_ready(self)

    def send_event(self, type: str, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        """Tell event monitors which process runs the task; an event's own ``pid`` is the Celery worker's."""
        if type == "task-started":
            fields["worker_pid"] = self.worker_pid
        return super().send_event(type, **fields)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Handle the three ends that only we know; the rest is Celery's."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, StatementRevoked):
            if not self._already_revoked:
                self._announce_revoked("terminated", True, self._revoke_signal, False)
            return None
        if isinstance(error, StatementLeft):
            return self.reject(requeue=True)
        if isinstance(error, StatementLost):
            if state.should_terminate:
                return self.reject(requeue=True)
            try:
                raise error.error
            except type(error.error):
                return super().on_failure(ExceptionInfo(), send_failed_event, return_ok=False)
        return super().on_failure(exc_info, send_failed_event, return_ok)
