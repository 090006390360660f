"""Celery's request, taught that a revoke is settled by the server and that a shutdown is not one."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import WorkerLostError
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

    #: Set where the message is to be discarded, but an earlier delivery may have left its statement running:
    #: reason and whether that is expiry. The pool then stops the statement before anything is announced.
    stops_first: tuple[str, bool] | None = None

    def revoked(self) -> bool:
        """Discard what was revoked or has expired, unless there may be something to stop first."""
        return bool(super().revoked()) and self.stops_first is None

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if not terminated and TaskPool.is_in_this_process and (self.delivery_info or {}).get("redelivered"):
            self.stops_first = reason, expired
            return
        super()._announce_revoked(reason, terminated, signum, expired)

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

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Handle the three ends that only we know; the rest is Celery's."""
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
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def _on_lost(self, error: StatementLeft | StatementLost, send_failed_event: bool) -> Any:
        """Nobody else will tell how it ended, if its message is not delivered again."""
        left = f"{self.name}[{self.id}]: {error}; it stood alone, so nobody can know how far it came"
        try:
            raise error.error if isinstance(error, StatementLost) else WorkerLostError(left)
        except WorkerLostError:
            return super().on_failure(ExceptionInfo(), send_failed_event, return_ok=False)
