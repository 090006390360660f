"""The relay as a part of a Celery worker, with ``pgbg_relay``."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from celery_pgbg.broker.outbox import goes_through_outbox
from celery_pgbg.broker.relay import Relay
from celery_pgbg.configuration import settings_of
from celery_pgbg.lasting import LastingThread

#: How long a stopping Celery worker waits for the message that is being forwarded, in seconds.
_END_SECONDS = 5.0


class RelayStep(bootsteps.StartStopStep):
    """Forwards in a thread, from the start of the Celery worker to its end."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._relay: Relay | None = None
        self._thread: LastingThread | None = None
        super().__init__(worker, **options)

    def include_if(self, worker: Any) -> bool:
        """Whether ``pgbg_relay`` is set and the broker is not ``pgbg://``."""
        return settings_of(worker.app).relay and goes_through_outbox(worker.app)

    def start(self, worker: Any) -> None:
        """Begin."""
        settings = settings_of(worker.app)
        self._relay = Relay(worker.app, settings.dsn_of(None), settings)
        self._thread = LastingThread("pgbg-relay", self._relay.run)
        self._thread.start()

    def stop(self, worker: Any) -> None:
        """End. Messages that were taken but not sent go back."""
        if self._relay is None or self._thread is None:
            return
        self._relay.stop()
        self._thread.stop()
        self._thread.join(_END_SECONDS)

    def terminate(self, worker: Any) -> None:
        """End."""
        self.stop(worker)
