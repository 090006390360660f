"""Forwards the messages of the outbox: at least once, in order, and under the same task ids."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from kombu.exceptions import OperationalError
from kombu.utils import json

from celery_pgbg.broker.inlet import Inlet
from celery_pgbg.broker.messages import Delivery
from celery_pgbg.broker.outbox import DECLARE, OUTBOX
from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.sessions import Session, connect
from celery_pgbg.errors import PgbgError, SessionLost
from celery_pgbg.settings import Settings

logger = logging.getLogger(__name__)

#: How many messages are taken at once; they are sent one by one.
_BATCH = 100

#: Pause before a waiting relay checks whether the active relay has ended, in seconds.
_TURN_SECONDS = 2.0


class Relay:
    """A relay. Any number may run for a database, but only one is active; a waiting one takes over.

    Args:
        app: the app of the broker that gets the messages.
        dsn: the database of the outbox.
        settings: the timeouts for the server.
    """

    def __init__(self, app: Any, dsn: str, settings: Settings) -> None:
        self._app = app
        self._dsn = dsn
        self._settings = settings
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End soon. Messages that were taken but not sent go back."""
        self._stopping.set()

    def run(self, is_done: Callable[[], bool] = lambda: False) -> None:
        """Forward until stopped; after errors of the server or the broker, wait and try again.

        Args:
            is_done: called whenever the outbox is empty; True ends the relay.

        Raises:
            ConfigurationError: the database lacks our schema.
        """
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                inlet = Inlet(self._open_session, "relay", poll_interval=0.5)
            except (SessionLost, psycopg.OperationalError) as exc:
                logger.warning("relay: %s", exc)
                self._stopping.wait(backoff.next())
                continue
            try:
                self._work(inlet, backoff, is_done)
                if is_done():
                    return
            except Exception as exc:
                if not isinstance(exc, (PgbgError, psycopg.Error, *_broker_errors(self._app))):
                    raise
                logger.warning("relay: messages cannot be forwarded, trying again: %s", exc)
                self._stopping.wait(backoff.next())
            finally:
                inlet.close()

    def _work(self, inlet: Inlet, backoff: Backoff, is_done: Callable[[], bool]) -> None:
        while not self._stopping.is_set() and not inlet.take_turn("relay"):
            self._stopping.wait(_TURN_SECONDS)
        inlet.start_relay(OUTBOX)
        # A killed relay may have held messages: they come first.
        inlet.tend()
        while not self._stopping.is_set():
            deliveries = inlet.take(OUTBOX, _BATCH)
            with self._app.producer_pool.acquire(block=True) as producer:
                for delivery in deliveries:
                    self._send(producer, delivery)
                    inlet.ack(delivery.id)
            inlet.flush()
            backoff.reset()
            if len(deliveries) < _BATCH:
                if is_done():
                    return
                if inlet.tend_if_due():
                    # A transaction that began before this relay may have sent from SQL.
                    inlet.start_relay(OUTBOX)
                inlet.waiting.wait(inlet.fileno(), self._settings.poll_interval, lambda: False)

    def _send(self, producer: Any, delivery: Delivery) -> None:
        envelope = json.loads(delivery.envelope)
        properties = dict(envelope["properties"])
        expiration = properties.pop("expiration", None)
        producer.publish(
            delivery.body,
            exchange=envelope["exchange"],
            routing_key=envelope["routing_key"],
            content_type=envelope["content_type"],
            content_encoding=envelope["content_encoding"],
            headers=envelope["headers"],
            declare=self._queues(envelope),
            expiration=None if expiration is None else int(expiration) / 1000,
            retry=True,
            retry_policy={"max_retries": 1, "interval_start": 0},
            **properties,
        )

    def _queues(self, envelope: dict[str, Any]) -> list[Any]:
        """The queues to declare: those declared at the sending or, for a message sent by SQL, its own queue."""
        found = []
        for name in envelope.get(DECLARE) or [envelope["routing_key"]]:
            # An app may refuse unknown queues.
            with contextlib.suppress(KeyError):
                found.append(self._app.amqp.queues[name])
        return found

    def _open_session(self) -> Session:
        return connect(
            self._dsn,
            application_name="pgbg relay",
            connect_timeout=self._settings.connect_timeout,
            answer_timeout=self._settings.answer_timeout,
        )


def _broker_errors(app: Any) -> tuple[type[Exception], ...]:
    with app.connection_for_write() as connection:
        return (*connection.connection_errors, *connection.channel_errors, OSError, OperationalError)
