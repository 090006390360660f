"""Sending in the caller's transaction with another broker: messages wait in our own queue for a relay."""

from __future__ import annotations

from typing import Any

from kombu import Producer

from celery_pgbg.broker.messages import Parcel
from celery_pgbg.broker.queries import text
from celery_pgbg.celery_patches.producers import divert_producers
from celery_pgbg.database.callers import CallersTransaction, callers_transaction, sending_in

__all__ = ["OUTBOX", "OutboxProducer", "sending_in"]

#: Installed with the schema.
OUTBOX = "celery_pgbg.outbox"

#: In the envelope: the queues to declare before the message is forwarded.
DECLARE = "declare"

_OUR_SCHEME = "pgbg"


class OutboxProducer(Producer):
    """Writes messages into the caller's transaction instead of sending them to a broker."""

    def __init__(self, caller: CallersTransaction, app: Any) -> None:
        super().__init__(None, auto_declare=False, serializer=app.conf.task_serializer)
        self._caller = caller
        self._app = app

    @property
    def connection(self) -> Any:
        """Not connected; Celery reads its error classes."""
        return self._app.connection_for_write()

    def publish(
        self,
        body: Any,
        routing_key: str | None = None,
        delivery_mode: Any = None,
        mandatory: bool = False,
        immediate: bool = False,
        priority: int = 0,
        content_type: str | None = None,
        content_encoding: str | None = None,
        serializer: str | None = None,
        headers: dict[str, Any] | None = None,
        compression: str | None = None,
        exchange: Any = None,
        retry: bool = False,
        retry_policy: Any = None,
        declare: Any = None,
        expiration: float | None = None,
        **properties: Any,
    ) -> None:
        """Write a message as ``Producer.publish`` would send it."""
        headers = {} if headers is None else headers
        name, properties["delivery_mode"] = self._delivery_details(exchange or self.exchange, delivery_mode)
        if expiration is not None:
            properties["expiration"] = str(int(expiration * 1000))
        for name_of_option in ("timeout", "confirm_timeout"):
            properties.pop(name_of_option, None)
        body, content_type, content_encoding = self._prepare(
            body, serializer, content_type, content_encoding, compression, headers
        )
        message = {
            "body": body,
            "content_type": content_type,
            "content_encoding": content_encoding,
            "headers": headers,
            "properties": {**properties, "priority": priority},
        }
        declared = [entity.name for entity in declare or () if getattr(entity, "name", None)]
        parcel = Parcel.pack(message, name, routing_key or "", {DECLARE: declared})
        parameters = {**parcel.parameters(relaxed=False), "exchange": "", "routing_key": OUTBOX}
        # The message has no time limit in the outbox; its expiry begins at the broker.
        self._caller.fetch(text("publish"), {**parameters, "priority": 0, "ttl_ms": None})


def goes_through_outbox(app: Any) -> bool:
    """Whether an app's messages in transactions go to the outbox, because its broker is not ours."""
    return not str(app.conf.broker_write_url or "").startswith(_OUR_SCHEME)


def _outbox_of(app: Any) -> OutboxProducer | None:
    caller = callers_transaction()
    if caller is None or not goes_through_outbox(app):
        return None
    return OutboxProducer(caller, app)


# With another broker, messages in a block of ``sending_in`` go to the outbox.
divert_producers(_outbox_of)
