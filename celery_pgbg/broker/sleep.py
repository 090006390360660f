"""The queues on which a consumer sleeps: for them senders notify it."""

from __future__ import annotations

from collections.abc import Iterable

from celery_pgbg.broker.consumer_session import ConsumerSession


class Sleep:
    """Holds a lock for each queue on which the consumer sleeps. The caller holds the lock of its session."""

    def __init__(self, session: ConsumerSession) -> None:
        self._session = session
        self._queue_ids: set[int] = set()

    def on(self, queue_ids: set[int]) -> bool:
        """Sleep on exactly these queues. True if there are new ones."""
        self.end(self._queue_ids - queue_ids)
        new = list(queue_ids - self._queue_ids)
        if new:
            self._queue_ids.update(row[0] for row in self._session.fetch("fall_asleep", queue_ids=new))
        return bool(new)

    def end(self, queue_ids: Iterable[int]) -> None:
        """Be awake for these queues."""
        ids = [queue_id for queue_id in queue_ids if queue_id in self._queue_ids]
        if ids:
            self._queue_ids.difference_update(ids)
            self._session.fetch("wake_up", queue_ids=ids)
