"""What our requests ask of our pool."""

from __future__ import annotations

from celery_pgbg.watch import Interruption


class Interruptible:
    """A pool that stops SQL tasks, or leaves them running, by their task id: ours, and no other."""

    def interrupt(self, task_id: str, interruption: Interruption) -> bool:
        """Interrupt the SQL task of this id. False if there is none, or it has ended."""
        raise NotImplementedError

    def leave(self, task_id: str) -> None:
        """Celery gives this task up, for a shutdown or a lost connection, which is no revoke."""
        raise NotImplementedError
