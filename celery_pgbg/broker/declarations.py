"""The half of a channel that declares queues, exchanges and bindings."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from typing import Any

from amqp.exceptions import NotFound
from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import ChannelError
from kombu.transport import base

from celery_pgbg.errors import SessionLost

EXCHANGE_TYPES = ("direct", "topic", "fanout")

#: AMQP's numbers of the methods, which are part of its errors.
QUEUE_METHOD, EXCHANGE_METHOD = (50, 10), (40, 10)


class Declarations:
    """AMQP's methods for queues, exchanges and bindings."""

    connection: Any

    @property
    def outlet(self) -> Any:
        """The sending side.

        Raises:
            SessionLost: the channel, or its connection, is closed.
        """
        if self.connection is None:
            raise SessionLost("the channel is closed")
        return self.connection.outlet

    def prepare_queue_arguments(self, arguments: Mapping[str, Any], **kwargs: Any) -> Any:
        """Name a queue's options as RabbitMQ does."""
        return base.to_rabbitmq_queue_arguments(arguments, **kwargs)

    def exchange_declare(
        self,
        exchange: str = "",
        type: str = "direct",  # noqa: A002 - kombu's name
        passive: bool = False,
        **options: Any,
    ) -> None:
        """Make an exchange, unless it exists.

        Raises:
            ChannelError: it exists with another type, or the type is not supported.
            NotFound: passive, and there is none.
        """
        name, wanted = exchange or f"amq.{type or 'direct'}", type or "direct"
        if wanted not in EXCHANGE_TYPES and not passive:
            raise ChannelError(f"exchange {name!r}: type must be one of {', '.join(EXCHANGE_TYPES)}, got {wanted!r}")
        found = self.outlet.fetch("declare_exchange", {"name": name, "type": wanted, "passive": passive})[0]
        if found is None:
            raise NotFound(f"no exchange {name!r}", EXCHANGE_METHOD)
        if found != wanted and not passive:
            raise ChannelError(f"exchange {name!r} is of type {found!r}, not {wanted!r}", EXCHANGE_METHOD)

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Delete an exchange with its bindings."""
        self.outlet.fetch("delete_exchange", {"name": exchange, "if_unused": if_unused})

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> queue_declare_ok_t:
        """Make a queue, unless it exists; an existing queue keeps its first declaration.

        Raises:
            NotFound: passive, and there is none.
        """
        given = arguments or {}
        name = queue or f"amq.gen-{uuid.uuid4()}"
        row = self.outlet.fetch(
            "declare_queue",
            {
                "name": name,
                "passive": passive,
                "auto_delete": auto_delete or exclusive,
                "max_priority": given.get("x-max-priority") or 0,
                "message_ttl_ms": given.get("x-message-ttl"),
                "expires_ms": given.get("x-expires"),
            },
        )
        if row[0] is None:
            raise NotFound(f"no queue {name!r}", QUEUE_METHOD)
        return queue_declare_ok_t(name, row[1], row[2])

    def queue_bind(
        self, queue: str, exchange: str = "", routing_key: str = "", arguments: Any = None, **options: Any
    ) -> None:
        """Let a queue get messages of an exchange.

        Raises:
            NotFound: one of them does not exist.
        """
        if not exchange:
            return
        parameters = {"queue": queue, "exchange": exchange, "routing_key": routing_key or ""}
        missing = self.outlet.fetch("bind_queue", parameters)[0]
        if missing:
            raise NotFound(
                f"no {missing} {parameters[missing]!r}", QUEUE_METHOD if missing == "queue" else EXCHANGE_METHOD
            )

    def queue_unbind(
        self, queue: str, exchange: str = "", routing_key: str = "", arguments: Any = None, **options: Any
    ) -> None:
        """Remove a binding."""
        parameters = {"queue": queue, "exchange": exchange, "routing_key": routing_key or ""}
        self.outlet.fetch("unbind_queue", parameters)

    def exchange_bind(self, *args: Any, **options: Any) -> None:
        """Not offered.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("this broker cannot bind exchanges to exchanges")

    exchange_unbind = exchange_bind

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **options: Any) -> int | None:
        """Delete a queue with its messages; returns how many waited.

        Raises:
            ChannelError: the queue is in use, or not empty, against the caller's condition.
        """
        parameters = {"name": queue, "if_unused": if_unused, "if_empty": if_empty}
        waiting: int | None = self.outlet.fetch("delete_queue", parameters)[0]
        if waiting is None:
            raise ChannelError(f"queue {queue!r} is in use, or not empty", QUEUE_METHOD)
        return waiting

    def queue_purge(self, queue: str, **options: Any) -> int:
        """Delete the waiting messages of a queue; returns their number."""
        return int(self.outlet.fetch("purge_queue", {"name": queue})[0])

    def list_bindings(self) -> list[tuple[str, str, str]]:
        """Queue, exchange and routing key of all bindings."""
        rows: list[tuple[str, str, str]] = self.outlet.fetch_all("bindings")
        return rows

    def after_reply_message_received(self, queue: str) -> None:
        """Called when a queue for replies is no longer needed."""
        with contextlib.suppress(ChannelError):
            self.queue_delete(queue)
