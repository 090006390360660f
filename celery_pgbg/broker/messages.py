"""Messages to send and received messages, and their form in the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kombu.transport import base
from kombu.utils import json

from celery_pgbg.orders import MessageRow

#: AMQP's properties; RabbitMQ's client drops all other options.
_PROPERTIES = frozenset(
    {
        "app_id", "cluster_id", "correlation_id", "delivery_mode", "expiration", "message_id", "priority", "reply_to",
        "timestamp", "type", "user_id",
    }
)  # fmt: skip

#: AMQP's delivery mode of messages that need not survive a crash of the server.
_TRANSIENT = 1


@dataclass(frozen=True)
class Parcel:
    """A message on its way to the server.

    Attributes:
        ttl_ms: milliseconds after which the message is dropped; None: never.
        relaxed: whether a crash of the server may lose the message.
        envelope: JSON: everything but the body.
    """

    exchange: str
    routing_key: str
    priority: int
    ttl_ms: int | None
    relaxed: bool
    envelope: str
    body: bytes

    @classmethod
    def pack(
        cls, message: Mapping[str, Any], exchange: str, routing_key: str, extra: Mapping[str, Any] | None = None
    ) -> Parcel:
        """Pack a message of ``Channel.prepare_message``; ``extra`` goes into the envelope."""
        properties = message["properties"]
        body = message["body"]
        if isinstance(body, str):
            encoding = message["content_encoding"]
            body = body.encode("utf-8" if encoding in (None, "", "binary") else encoding)
        expiration = properties.get("expiration")
        envelope = {
            "exchange": exchange,
            "routing_key": routing_key,
            **(extra or {}),
            "properties": {name: value for name, value in properties.items() if name in _PROPERTIES},
            **{key: message[key] for key in ("content_type", "content_encoding", "headers")},
        }
        return cls(
            exchange,
            routing_key,
            int(properties.get("priority") or 0),
            None if expiration in (None, "") else int(expiration),
            properties.get("delivery_mode") == _TRANSIENT,
            json.dumps(envelope),
            bytes(body or b""),
        )

    def parameters(self, relaxed: bool | None = None) -> dict[str, Any]:
        """As ``publish.sql`` takes it."""
        values = dict(vars(self))
        return values if relaxed is None else {**values, "relaxed": relaxed}


@dataclass(frozen=True)
class Delivery:
    """A message as received from the server.

    Attributes:
        deliveries: how often it was delivered before.
    """

    id: int
    deliveries: int
    envelope: str
    body: bytes


class Message(base.Message):
    """A received message, for kombu."""

    def __init__(self, delivery: Delivery, channel: Any, tag: int, consumer_tag: str | None, is_kept: bool) -> None:
        self._row_id = delivery.id if is_kept else None
        envelope = json.loads(delivery.envelope)
        properties = envelope.get("properties") or {}
        info = {
            "delivery_tag": tag,
            "redelivered": delivery.deliveries > 0,
            "exchange": envelope.get("exchange"),
            "routing_key": envelope.get("routing_key"),
            "priority": properties.get("priority"),
        }
        if consumer_tag is not None:
            info["consumer_tag"] = consumer_tag
        super().__init__(
            body=delivery.body,
            channel=channel,
            delivery_tag=tag,
            content_type=envelope.get("content_type"),
            content_encoding=envelope.get("content_encoding"),
            delivery_info=info,
            properties=properties,
            headers=envelope.get("headers"),
        )

    @property
    def row(self) -> MessageRow | None:
        """Its database, and its id there; None for a message that ended with its delivery."""
        return None if self._row_id is None else (self.channel.identity, self._row_id)

    def ended_with_its_task(self) -> None:
        """Note that the task's transaction has deleted the message: its acknowledgement need not hurry."""
        if self._row_id is not None:
            self.channel.gone.add(self._row_id)
