"""The receiving side: one session that takes messages for all consumers of a process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

from celery_pgbg.broker.acknowledgements import Acknowledgements
from celery_pgbg.broker.consumer_session import ConsumerSession
from celery_pgbg.broker.messages import Delivery
from celery_pgbg.broker.rhythm import Rhythm
from celery_pgbg.broker.sleep import Sleep
from celery_pgbg.broker.slots import Slot, Subscription, Taker
from celery_pgbg.broker.waiting import Waiting
from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import SessionLost
from celery_pgbg.orders import Identity

#: The notification of ``give_back``: there are messages with ids below those taken before.
_RETURNED = "returned"

_CLOSED = "it was closed"


class Inlet:
    """Takes and acknowledges messages for all channels. Any thread may call it.

    Messages go to the channels' inboxes. The inlet lives as long as its session, and keeps its messages for that time.
    Every call raises ``SessionLost`` once the session is over.

    Args:
        open_session: makes a connected session.
        name: what others see of this consumer.
        poll_interval: seconds between looks without NOTIFY; None: use NOTIFY.
        max_deliveries: how often a message is delivered at most; None: no limit.
        earlier: the id of the one that was lost before, if there was one.

    Attributes:
        opened_at: time of its opening, by the monotonic clock.
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        name: str,
        poll_interval: float | None = None,
        max_deliveries: int | None = None,
        earlier: int | None = None,
    ) -> None:
        self.opened_at = time.monotonic()
        self._was_refused = False
        self._max_deliveries = max_deliveries
        self._subscriptions: dict[tuple[Taker, str], Subscription] = {}
        self._acks = Acknowledgements()
        self._session = ConsumerSession(open_session, name, poll_interval is None, earlier)
        self._session.on_notify(self._on_notify)
        self._sleep = Sleep(self._session)
        self.rhythm = Rhythm(self._session.listens, poll_interval)

    @property
    def id(self) -> int:
        """Its number among all consumers."""
        return self._session.id

    @property
    def lost(self) -> str | None:
        """Why it is over; None while it is not."""
        return self._session.lost

    @property
    def has_failed(self) -> bool:
        """Whether its session was lost, or the server refused to let it take messages."""
        return self._was_refused or self.lost not in (None, _CLOSED)

    @property
    def identity(self) -> Identity:
        """The database that it takes from."""
        return self._session.identity

    @property
    def waiting(self) -> Waiting:
        """Its lock, and the threads that wait for messages."""
        return self._session.waiting

    def fileno(self) -> int:
        """The socket that becomes readable when we are notified."""
        return self._session.fileno()

    # --- subscribing -------------------------------------------------------------------------------

    def subscribe(self, channel: Taker, queue: str, tag: str, no_ack: bool) -> bool:
        """Begin to take from a queue for a channel. False if the queue does not exist."""
        with self.waiting.lock:
            row = self._session.fetch("subscribe", queue=queue, tag=f"{channel.channel_id} {tag}")[0]
            if row[0] is None:
                return False
            subscription = Subscription(channel, tag, row[0], row[1], no_ack)
            self._session.listen(subscription.queue_id)
            self._subscriptions[channel, tag] = subscription
        self.ring()
        return True

    def unsubscribe(self, channel: Taker, tag: str) -> None:
        """Stop taking from a queue. Messages in the inbox remain there."""
        with self.waiting.lock:
            subscription = self._subscriptions.pop((channel, tag), None)
            if subscription is None:
                return
            queue_id = subscription.queue_id
            if all(other.queue_id != queue_id for other in self._subscriptions.values()):
                self._sleep.end([queue_id])
                self._session.unlisten(queue_id)
            self._session.fetch("unsubscribe", tag=f"{channel.channel_id} {tag}")

    def leave(self, channel: Taker) -> None:
        """Give back a channel's messages, and end its subscriptions.

        Raises:
            SessionLost: the server refused, so the session is ended, and its end gives all messages back.
        """
        with self.waiting.lock:
            tags, back = channel.leave()
            try:
                self.flush()
                self.give_back(back)
                for tag in tags:
                    self.unsubscribe(channel, tag)
            except psycopg.Error as exc:
                self._session.lose(f"a channel could not be closed: {exc}", exc)

    @property
    def is_idle(self) -> bool:
        """Whether no channel takes from a queue."""
        return not self._subscriptions

    @property
    def queue_ids(self) -> list[int]:
        """The queues that channels take from."""
        return sorted({each.queue_id for each in list(self._subscriptions.values())})

    # --- looking -------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Make the next look happen at once."""
        self.rhythm.ring()
        self.waiting.wake()

    def capacity_has_grown(self) -> bool:
        """Whether full consumers have enough room again for a look."""
        return any([each.channel.has_room(each.no_ack) for each in self._hungry()])

    def has_little_room(self) -> bool:
        """Whether full consumers have some room, which is worth a look after some time."""
        return any(each.channel.has_little_room for each in self._hungry())

    def _hungry(self) -> list[Subscription]:
        """The subscriptions with possibly more messages than they could take."""
        return [each for each in list(self._subscriptions.values()) if each.is_hungry]

    def look(self) -> None:
        """Send acknowledgements, take messages into the inboxes, and do periodic work."""
        with self.waiting.lock:
            tends = self.rhythm.tend_is_due()
            self.rhythm.begin()
            slots, limits = self._wanted()
            for slot in slots:
                slot.aim(self.rhythm.reach)
            for subscription in self._subscriptions.values():
                subscription.is_hungry = True
            if not slots:
                self._sleep.on(set())
                if tends or self._acks:
                    self._consume({}, [], tends)
                self.rhythm.nothing_wanted()
                return
            left = self._take(slots, limits, tends)
            taken = sum(limits) - sum(left)
            for slot, group in slots.items():
                if slot.subscription is not None and left[group - 1] > 0:
                    slot.subscription.is_hungry = False
            self.rhythm.end(taken)
            empty = {slot.queue_id for slot, group in slots.items() if left[group - 1] > 0}
            if self._session.listens and self._sleep.on(set() if self.rhythm.is_busy else empty):
                # A sender may have sent while we were falling asleep.
                self.rhythm.ring_softly()
        if taken:
            self.waiting.wake()

    def take(self, queue: str, count: int = 1, no_ack: bool = False) -> list[Delivery]:
        """Take messages of a queue, without subscribing to it."""
        with self.waiting.lock:
            found = self._session.fetch("find_queue", name=queue)
            if not found:
                return []
            slots = [Slot(found[0][0], priority, no_ack) for priority in range(found[0][1], -1, -1)]
            return [delivery for _, delivery in self._consume(dict.fromkeys(slots, 1), [count])]

    def take_turn(self, name: str) -> bool:
        """Take an exclusive turn until the session ends. False if another session has it."""
        return bool(self._session.fetch("take_turn", turn=name)[0][0])

    def start_relay(self, outbox: str) -> None:
        """Note that the outbox is forwarded, and move there what SQL sent to queues that nobody has declared."""
        self._session.fetch("start_relay", name=outbox)

    def tend_if_due(self) -> bool:
        """Do the periodic work, if it is time. Returns whether it was."""
        if not self.rhythm.tend_is_due():
            return False
        self.tend()
        return True

    def _wanted(self) -> tuple[dict[Slot, int], list[int]]:
        """Find what to take: the slots with their group numbers, and the room of each group."""
        groups: dict[object, int] = {}
        limits: list[int] = []
        slots: dict[Slot, int] = {}
        # Queues that share a prefetch count take turns.
        for subscription in self.rhythm.turned(list(self._subscriptions.values())):
            key = subscription if subscription.no_ack else subscription.channel
            if key not in groups:
                limits.append(subscription.channel.capacity(subscription.no_ack))
                groups[key] = len(limits)
            if limits[groups[key] - 1] > 0:
                slots.update(dict.fromkeys(subscription.slots, groups[key]))
        return slots, limits

    def _take(self, slots: dict[Slot, int], limits: list[int], tends: bool) -> list[int]:
        """Take into the inboxes; returns how many more each group would have."""
        left = list(limits)
        for slot, delivery in self._consume(slots, limits, tends):
            left[slots[slot] - 1] -= 1
            if slot.subscription is not None:
                slot.subscription.channel.receive(delivery, slot.subscription)
        return left

    def _consume(self, slots: dict[Slot, int], limits: list[int], tends: bool = False) -> list[tuple[Slot, Delivery]]:
        """Acknowledge and take, and before that tend, all in one round trip."""
        places = list(slots)
        acked = self._acks.take()
        parameters = {
            "acked": acked,
            "queue_ids": [slot.queue_id for slot in places],
            "priorities": [slot.priority for slot in places],
            "lowest_ids": [slot.lowest_id for slot in places],
            "no_acks": [slot.no_ack for slot in places],
            "groups": list(slots.values()),
            "limits": limits,
        }
        try:
            if tends:
                rows = self._tend("tend_and_consume", **parameters)
            else:
                rows = self._session.fetch("consume", **parameters)
        except BaseException:
            # The session may live on, as with a full disk: the next call sends them.
            self._acks.put_back(acked)
            self._was_refused = True
            raise
        # An UPDATE returns its rows in no particular order.
        rows.sort(key=lambda row: (row[1], row[0]))
        ids: dict[Slot, list[int]] = {}
        found = []
        for message_id, place, deliveries, envelope, body in rows:
            slot = places[place - 1]
            ids.setdefault(slot, []).append(message_id)
            found.append((slot, Delivery(message_id, deliveries, envelope, body)))
        for slot, of_slot in ids.items():
            slot.note(of_slot)
        return found

    def tend(self) -> None:
        """Give back the messages of lost consumers, and remove expired messages and queues.

        Raises:
            SessionLost: this consumer itself was given up.
        """
        self._tend("tend_broker")

    def _tend(self, name: str, **parameters: Any) -> list[Any]:
        """Tend; returns what else the statement does: its rows with an id, without the last column."""
        thorough = self.rhythm.tended()
        rows = self._session.fetch(
            name,
            lease_ms=self._session.lease_ms,
            max_deliveries=self._max_deliveries,
            thorough=thorough,
            **parameters,
        )
        if not rows[0][-1]:
            self._session.lose("its lease ended, or its record was deleted")
        return [row[:-1] for row in rows if row[0] is not None]

    # --- acknowledging ---------------------------------------------------------------------------------

    def ack(self, message_id: int, is_gone: bool = False) -> None:
        """Delete a message with the next look or ``flush``. Any thread may call, also during a look.

        Args:
            message_id: its id.
            is_gone: it need not hurry, because the task's transaction has deleted the message.
        """
        self._acks.add(message_id, is_gone)

    @property
    def has_acked(self) -> bool:
        """Whether acknowledgements should be sent soon."""
        return self._acks.is_urgent

    def flush(self) -> None:
        """Send the acknowledgements now."""
        if self._acks:
            with self.waiting.lock:
                self._consume({}, [])

    def give_back(self, message_ids: Iterable[int]) -> None:
        """Give messages back, for any consumer.

        Raises:
            SessionLost: the server refused, so the session is ended, and its end gives them back.
        """
        ids = list(message_ids)
        if ids:
            try:
                self._session.fetch("give_back", ids=ids, max_deliveries=self._max_deliveries)
            except psycopg.Error as exc:
                self._session.lose(f"messages could not be given back: {exc}", exc)
            self.ring()

    # --- notifications -----------------------------------------------------------------------------------

    def read(self) -> None:
        """Read the notifications that have come, without waiting."""
        with self.waiting.lock:
            self._session.read(self._on_notify)

    def _on_notify(self, note: psycopg.Notify) -> None:
        self.rhythm.notified(is_full=note.payload == _RETURNED)

    # --- the session ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the session in order: its messages go to other consumers at once."""
        with self.waiting.lock:
            if self.lost is None:
                with contextlib.suppress(SessionLost, psycopg.Error):
                    self.flush()
                    self._session.fetch("give_back", ids=None, max_deliveries=self._max_deliveries)
                    self._session.fetch("unregister_consumer")
            self._session.end(_CLOSED)
