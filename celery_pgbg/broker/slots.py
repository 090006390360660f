"""The queues that a consumer takes from, and their lowest ids."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from celery_pgbg.broker.messages import Delivery
from celery_pgbg.broker.rhythm import LATE_SECONDS, Reach

#: How many messages one look takes for a consumer without a prefetch count.
BATCH = 200


class Taker(Protocol):
    """The interface of a channel that gets messages."""

    channel_id: int

    def capacity(self, no_ack: bool) -> int:
        """How many more messages may come now."""

    def has_room(self, no_ack: bool) -> bool:
        """Whether a look for more messages is worth it."""

    @property
    def has_little_room(self) -> bool:
        """Whether there is any room; with little room, a look is worth it after some time."""

    def receive(self, delivery: Delivery, subscription: Subscription) -> None:
        """Put a message into the inbox."""

    def leave(self) -> tuple[list[str], list[int]]:
        """Forget consumers and messages; returns the consumers' tags and the messages to give back."""


class Subscription:
    """One ``basic_consume``: a queue, and where its messages go.

    Attributes:
        slots: one for each priority, the highest first.
        is_hungry: whether the last look took as much as it could, so that more may wait.
    """

    def __init__(self, channel: Taker, tag: str, queue_id: int, max_priority: int, no_ack: bool) -> None:
        self.channel = channel
        self.tag = tag
        self.queue_id = queue_id
        self.no_ack = no_ack
        self.is_hungry = False
        self.slots = [Slot(queue_id, priority, no_ack, self) for priority in range(max_priority, -1, -1)]


class Slot:
    """One priority of a queue.

    A look from the lowest id that may wait skips the rows that were taken before. Under an old snapshot these rows
    cannot be cleaned up, and each look would read them all. Ids do not commit in order, so most looks begin some time
    before the last taken id.

    Attributes:
        lowest_id: the id from which the next look begins.
    """

    def __init__(self, queue_id: int, priority: int, no_ack: bool, subscription: Subscription | None = None) -> None:
        self.queue_id = queue_id
        self.priority = priority
        self.no_ack = no_ack
        self.subscription = subscription
        self.lowest_id = self._next_id = self._settled_id = 0
        self._taken: deque[tuple[float, int]] = deque()

    def aim(self, reach: Reach) -> None:
        """Set the id from which the coming look begins."""
        if reach is Reach.FULL:
            self.lowest_id = 0
        elif reach is Reach.NEXT and self.subscription is not None and self.subscription.is_hungry:
            self.lowest_id = self._next_id
        else:
            self.lowest_id = self._settled_id

    def note(self, ids: list[int]) -> None:
        """Note the ids that a look has taken."""
        now = time.monotonic()
        if min(ids) < self._settled_id:
            # More messages may wait in this slot.
            self._settled_id = 0
            self._taken.clear()
        highest_id = max(ids)
        self._next_id = highest_id + 1
        self._taken.append((now, highest_id))
        while self._taken[0][0] < now - LATE_SECONDS:
            self._settled_id = max(self._settled_id, self._taken.popleft()[1] + 1)
