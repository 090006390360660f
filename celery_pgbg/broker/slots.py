"""What a consumer takes from, and below which id nothing waits there."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from celery_pgbg.broker.messages import Delivery

#: Messages that one look takes for a consumer without a prefetch count.
BATCH = 200

#: For so long may a message commit after one of a higher id and still be found at once, in seconds. Our own commits
#: take some milliseconds; what a caller's transaction sends is found by a full look.
_LATE_SECONDS = 0.3


class Taker(Protocol):
    """What messages are taken for: a channel."""

    channel_id: int

    def capacity(self, no_ack: bool) -> int:
        """How many messages more may come now."""

    def has_room(self, no_ack: bool) -> bool:
        """Whether it is worth looking for more."""

    @property
    def has_little_room(self) -> bool:
        """Whether there is room, if not much: then time makes it worth a look."""

    def receive(self, delivery: Delivery, subscription: Subscription) -> None:
        """Put a message into the inbox."""

    def leave(self) -> tuple[list[str], list[int]]:
        """Forget consumers and messages; returns the tags of the former, and what of the latter is to be given back."""


class Subscription:
    """One ``basic_consume``: a queue, and where its messages go.

    Attributes:
        slots: one for each priority, the highest first.
        is_hungry: the last look took as much as it could, and may have left something.
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

    Looking from the lowest id that may wait there spares the rows that were taken before; under an old
    snapshot these cannot be cleaned up, and each look would read them all. Ids do not commit in their
    order, so the lowest id follows some seconds behind what was taken.
    """

    def __init__(self, queue_id: int, priority: int, no_ack: bool, subscription: Subscription | None = None) -> None:
        self.queue_id = queue_id
        self.priority = priority
        self.no_ack = no_ack
        self.subscription = subscription
        self.lowest_id = 0
        self._taken: deque[tuple[float, int]] = deque()

    def note(self, ids: list[int]) -> None:
        """Take note of what a look has taken."""
        now = time.monotonic()
        if min(ids) < self.lowest_id:
            # There may be more of these.
            self.lowest_id = 0
            self._taken.clear()
        highest_id = max(ids)
        self._taken.append((now, highest_id))
        while self._taken[0][0] < now - _LATE_SECONDS:
            self.lowest_id = max(self.lowest_id, self._taken.popleft()[1] + 1)
