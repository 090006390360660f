"""The interface of our pool for our requests."""

from __future__ import annotations

from celery_pgbg.watch import Interruption


class Interruptible:
    """A pool that can stop or leave SQL tasks by their task id: only our own pool."""

    def interrupt(self, task_id: str, interruption: Interruption) -> bool:
        """Interrupt the SQL task of this id. False if there is none, or it has ended."""
        raise NotImplementedError

    def leave(self, task_id: str) -> None:
        """Leave this task: Celery gives it up for a shutdown or a lost connection, not for a revoke."""
        raise NotImplementedError
