"""A channel: the methods of AMQP, as kombu calls them."""

from __future__ import annotations

import itertools
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from amqp.exceptions import NotFound
from kombu.transport import base

from celery_pgbg.broker import messages
from celery_pgbg.broker.declarations import QUEUE_METHOD, Declarations
from celery_pgbg.broker.inlet import Inlet
from celery_pgbg.broker.messages import Delivery, Parcel
from celery_pgbg.broker.outlet import Outlet, gather
from celery_pgbg.broker.slots import BATCH, Subscription
from celery_pgbg.errors import SessionLost
from celery_pgbg.orders import Identity

#: A full consumer gets more messages when a quarter of its prefetch count is free, or after this time in seconds. So
#: one look serves several quick tasks.
_PATIENCE = 0.005
_PART = 4


class ChannelOwner(Protocol):
    """The interface of a channel's connection."""

    loop: Any

    @property
    def outlet(self) -> Outlet:
        """The sending side."""

    @property
    def inlet(self) -> Inlet:
        """The receiving side."""

    def open_inlet(self) -> Inlet:
        """Open the receiving session, unless it is open."""

    def acked(self) -> None:
        """Called after an acknowledgement."""

    def close_channel(self, channel: Channel) -> None:
        """Called by a channel that closes."""


class Channel(Declarations, base.StdChannel):
    """Sends, takes and acknowledges for its consumers.

    Attributes:
        connection: its connection; None once closed.
        prefetch_count: how many unacknowledged messages its consumers may have together; 0: no limit.
    """

    # The name is kombu's.
    Message = messages.Message
    _ids = itertools.count(1)

    def __init__(self, connection: ChannelOwner) -> None:
        self.connection: ChannelOwner | None = connection
        self.channel_id = next(self._ids)
        self.prefetch_count = 0
        self.no_ack_consumers: set[str] = set()
        self.events: dict[str, set[Callable[..., Any]]] = defaultdict(set)
        self.inbox: deque[tuple[Delivery, Subscription]] = deque()
        self._callbacks: dict[str, Callable[[messages.Message], Any]] = {}
        self._unacked: dict[int, int] = {}
        #: Ids of messages that their tasks' transactions have deleted; they are still to be acknowledged.
        self.gone: set[int] = set()
        self._tags = itertools.count(1)
        self._full_since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the channel is open."""
        return self.connection is not None

    @property
    def _connection(self) -> ChannelOwner:
        if self.connection is None:
            raise SessionLost("the channel is closed: its unacknowledged messages were given back")
        return self.connection

    @property
    def _inlet(self) -> Inlet:
        return self._connection.inlet

    # --- sending -------------------------------------------------------------------------------------

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Make the message for ``basic_publish``."""
        return {
            "body": body,
            "content_type": content_type,
            "content_encoding": content_encoding,
            "headers": dict(headers or {}),
            "properties": {**(properties or {}), "priority": priority or 0},
        }

    def basic_publish(
        self,
        message: Mapping[str, Any],
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        **options: Any,
    ) -> None:
        """Send a message; it is stored when this returns, unless a batch gathers it."""
        parcel = Parcel.pack(message, exchange or "", routing_key or "")
        if mandatory or not gather(self.outlet, parcel):
            queues = self.outlet.publish([parcel])
            if queues == [0] and mandatory:
                for callback in self.events["basic_return"]:
                    callback(NotFound("NO_ROUTE"), exchange, routing_key, message)

    # --- receiving -------------------------------------------------------------------------------------

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Set how many messages the consumers of this channel may have unacknowledged, together."""
        grown = not prefetch_count or prefetch_count > self.prefetch_count > 0
        self.prefetch_count = prefetch_count
        if grown and self._callbacks:
            self._inlet.ring()

    def basic_consume(
        self,
        queue: str,
        no_ack: bool = False,
        callback: Callable[[messages.Message], Any] | None = None,
        consumer_tag: str = "",
        **options: Any,
    ) -> str:
        """Have messages of a queue delivered to a callback from now on.

        Raises:
            NotFound: there is no such queue.
        """
        tag = consumer_tag or f"amq.ctag-{uuid.uuid4()}"
        assert callback is not None
        self._callbacks[tag] = callback
        if no_ack:
            self.no_ack_consumers.add(tag)
        if not self._connection.open_inlet().subscribe(self, queue, tag, bool(no_ack)):
            del self._callbacks[tag]
            self.no_ack_consumers.discard(tag)
            raise NotFound(f"no queue {queue!r}", QUEUE_METHOD)
        return tag

    def basic_cancel(self, consumer_tag: str, **options: Any) -> None:
        """Stop consuming.

        Messages that have come are still delivered, as by RabbitMQ; an event loop gives them back instead.
        """
        if consumer_tag not in self._callbacks:
            return
        self._inlet.unsubscribe(self, consumer_tag)
        came = [item for item in self.inbox if item[1].tag == consumer_tag]
        self.inbox = deque(item for item in self.inbox if item[1].tag != consumer_tag)
        back = []
        for delivery, subscription in came:
            if self._connection.loop is None or subscription.no_ack:
                self._deliver(delivery, subscription)
            else:
                back.append(delivery.id)
        self._inlet.give_back(back)
        self._callbacks.pop(consumer_tag, None)
        self.no_ack_consumers.discard(consumer_tag)

    def basic_get(self, queue: str, no_ack: bool = False, **options: Any) -> messages.Message | None:
        """Take one message, if there is one."""
        inlet = self._connection.open_inlet()
        # There may be no consumer that gives back what lost ones had.
        inlet.tend_if_due()
        taken = inlet.take(queue, 1, bool(no_ack))
        return self._message(taken[0], None, bool(no_ack)) if taken else None

    def message_to_python(self, message: messages.Message) -> messages.Message:
        """Nothing to do."""
        return message

    def capacity(self, no_ack: bool) -> int:
        """How many more messages may come now."""
        if no_ack or not self.prefetch_count:
            return max(0, BATCH - len(self.inbox))
        return max(0, self._free)

    @property
    def _free(self) -> int:
        return self.prefetch_count - len(self._unacked) - len(self.inbox)

    @property
    def has_little_room(self) -> bool:
        """Whether there is any room; with little room, a look is worth it after some time."""
        return bool(self.prefetch_count) and self._free > 0

    def has_room(self, no_ack: bool) -> bool:
        """Whether a look for more messages is worth it."""
        if no_ack or not self.prefetch_count:
            return not self.inbox
        if self._free <= 0:
            self._full_since = time.monotonic()
            return False
        return self._free * _PART >= self.prefetch_count or time.monotonic() - self._full_since >= _PATIENCE

    @property
    def has_unacked(self) -> bool:
        """Whether there are unacknowledged messages, delivered or in the inbox."""
        return bool(self._unacked or self.inbox)

    def receive(self, delivery: Delivery, subscription: Subscription) -> None:
        """Put a message into the inbox."""
        self.inbox.append((delivery, subscription))

    def deliver(self) -> bool:
        """Give one message of the inbox to its consumer. False if there is none."""
        try:
            delivery, subscription = self.inbox.popleft()
        except IndexError:
            return False
        self._deliver(delivery, subscription)
        return True

    def _deliver(self, delivery: Delivery, subscription: Subscription) -> None:
        message = self._message(delivery, subscription.tag, subscription.no_ack)
        callback = self._callbacks.get(subscription.tag)
        if callback is not None:
            callback(message)
        elif not subscription.no_ack:
            self.basic_reject(message.delivery_tag, requeue=True)

    def _message(self, delivery: Delivery, consumer_tag: str | None, no_ack: bool) -> messages.Message:
        tag = next(self._tags)
        if not no_ack:
            self._unacked[tag] = delivery.id
        return messages.Message(delivery, self, tag, consumer_tag, is_kept=not no_ack)

    @property
    def identity(self) -> Identity:
        """The database of its messages."""
        return self._inlet.identity

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Have a message deleted; with ``multiple`` also all earlier messages. Any thread may call."""
        for message_id in self._settle(delivery_tag, multiple):
            self._inlet.ack(message_id, message_id in self.gone)
            self.gone.discard(message_id)
        self._connection.acked()

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Give a message back, or have it deleted."""
        if not requeue:
            self.basic_ack(delivery_tag)
        else:
            self._inlet.give_back(self._settle(delivery_tag, False))

    def basic_recover(self, requeue: bool = False) -> None:
        """Give back the unacknowledged messages."""
        given, self._unacked = self._unacked, {}
        self._inlet.give_back(given.values())

    def _settle(self, delivery_tag: int, multiple: bool) -> list[int]:
        tags = [tag for tag in list(self._unacked) if tag <= delivery_tag] if multiple else [delivery_tag]
        settled = [self._unacked.pop(tag, None) for tag in tags]
        return [message_id for message_id in settled if message_id is not None]

    # --- closing -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel the consumers and give back the unacknowledged messages."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close_channel(self)

    def abandon(self) -> None:
        """Forget everything, without a call to the server."""
        self.connection = None
        self.leave()

    def leave(self) -> tuple[list[str], list[int]]:
        """Forget consumers and messages; returns the consumers' tags and the messages to give back."""
        tags = list(self._callbacks)
        back = [*self._unacked.values(), *(item[0].id for item in self.inbox if not item[1].no_ack)]
        self._unacked = {}
        self.gone.clear()
        self._callbacks = {}
        self.inbox.clear()
        return tags, back
