"""Orders for reusable background workers: many are placed in one call, and checked together."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field

import psycopg
from psycopg import errors

from celery_pgbg.errors import ConfigurationError, SessionLost
from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.launching.launches import Placement, Sight
from celery_pgbg.execution.strategies.in_transaction import ENDED_EARLIER, SETTLING
from celery_pgbg.execution.strategies.means import Means
from celery_pgbg.execution.strategies.placing import GATHERING, Placing
from celery_pgbg.execution.waiting.watches import Entry
from celery_pgbg.handles import Handle
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Lost

logger = logging.getLogger(__name__)

#: When a placed order is first checked, in seconds: most have ended by then; and the time with many orders.
_FIRST_LOOK, _FIRST_LOOK_OF_MANY = 0.015, 0.04
_MANY = 4

#: Pauses between checks grow by this factor, up to so many seconds.
_LONGER, _LONGEST_PAUSE = 1.6, 0.5

#: Least time between two checks of all orders, in seconds; and the time with many orders.
_BETWEEN_LOOKS, _BETWEEN_LOOKS_AT_MANY = 0.01, 0.08

#: How long one check may take before another thread checks, in seconds.
_LONGEST_LOOK = 1.0

#: Orders in one call.
_BATCH = 100

#: How long one call may take before another thread makes a call for newer orders, in seconds.
_LONG_CALL = 0.02

#: Background workers that have taken nothing for so long, in milliseconds, are all at work for longer.
_STANDSTILL_MS = 60

#: The longest time in which waiting orders should be taken, in seconds, and the time over which the rate is measured.
_LONGEST_QUEUE, _RATE_SECONDS = 0.25, 0.1

#: Errors that may be gone at the next try.
PASSING = (SessionLost, errors.SerializationFailure, errors.DeadlockDetected)

#: So many checks in a row must find an order absent, or find an outcome without a notification.
_LOOKS_TO_BELIEVE = 2


@dataclass
class _Turns:
    """How many orders a pool had taken at a time of the monotonic clock."""

    number: int = 0
    at: float = 0.0


@dataclass
class Placer:
    """Places the orders of one runner and launches background workers that take them. Any thread may call.

    Orders that come during a call are sent together after it, by the thread of the first such order.

    Args:
        means: the shared parts of the strategies.
    """

    means: Means
    _name: str = field(default_factory=lambda: uuid.uuid4().hex)
    _queue: deque[Placing] = field(default_factory=deque)
    _placed: dict[Placing, None] = field(default_factory=dict)
    _turns: dict[str, _Turns] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _senders: int = 0
    _sending_since: float = 0.0
    _is_looking: bool = False
    _last_look: float = 0.0

    # --- placing -------------------------------------------------------------------------------------

    def put(self, order: Order, entry: Entry) -> Placing:
        """Queue an order; ``send`` sends it."""
        # One role's unknown leftovers in a session must not reach another role.
        placing = Placing(order, entry, f"{self._name} {order.role or ''}".strip())
        self._enqueue(placing)
        return placing

    def again(self, placing: Placing) -> None:
        """Queue an order again that could not be sent."""
        placing.state = "queued"
        self._enqueue(placing)

    def _enqueue(self, placing: Placing) -> None:
        placing.queued_at = time.monotonic()
        with self._lock:
            placing.gathers = not self._queue
            self._queue.append(placing)

    def withdraw(self, placing: Placing) -> bool:
        """Take an order back. False if it was already sent."""
        with self._lock:
            if placing.state != "queued" or placing not in self._queue:
                return False
            self._queue.remove(placing)
            return True

    def forget(self, placing: Placing) -> None:
        """No thread waits for it any more."""
        with self._lock:
            self._placed.pop(placing, None)

    def send(self) -> None:
        """Send the queued orders, unless another thread has just begun to; that thread wakes one for the rest."""
        batch = self._begin()
        if not batch:
            return
        try:
            self._send(batch)
        except Exception as exc:  # noqa: BLE001 - each of the waiting threads raises it
            for placing in batch:
                placing.error = exc
        finally:
            self._end(batch)

    def _begin(self) -> list[Placing]:
        now = time.monotonic()
        with self._lock:
            is_stuck = now - self._sending_since > _LONG_CALL and self._senders < len(self.means.launchers.used())
            if not self._queue or (self._senders and not is_stuck) or self._gathers(now):
                return []
            self._senders += 1
            self._sending_since = now
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            for placing in batch:
                placing.state = "sent"
            return batch

    def _gathers(self, now: float) -> bool:
        """Whether to wait for more: background workers have enough to do. The lock is held."""
        is_fresh = now - self._queue[0].queued_at < GATHERING
        return is_fresh and len(self._placed) >= _MANY and 2 * len(self._queue) < len(self._placed)

    def _end(self, batch: list[Placing]) -> None:
        now = time.monotonic()
        with self._lock:
            self._senders -= 1
            for placing in batch:
                if placing.error is not None:
                    placing.state = "failed"
                elif placing.state == "sent":
                    placing.state = "placed"
                    self._placed[placing] = None
            first = _FIRST_LOOK if len(self._placed) <= _MANY else _FIRST_LOOK_OF_MANY
            next_one = self._queue[0] if self._queue else None
        for placing in batch:
            placing.placed_at, placing.pause, placing.next_look = now, first, now + first
            if placing.error is not None or placing.state == "known":
                placing.wake()
        if next_one is not None:
            next_one.wake()

    def _send(self, batch: list[Placing]) -> None:
        with self.means.launchers.first_free() as launcher:
            self._send_by(launcher, batch)

    def _send_by(self, launcher: Launcher, batch: list[Placing]) -> None:
        def sending() -> None:
            for placing in batch:
                placing.entry.sending()

        results = launcher.place([(placing.pool, placing.order) for placing in batch], sending)
        # Only now is it known that the server accepts us.
        self.means.start()
        finished = []
        without_worker: list[str] = []
        for placing, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                placing.entry.may_run = False
                placing.error = result
            elif result.state == "finished":
                finished.append(placing.entry.watch.attempt)
            elif result.state == "worn out":
                placing.entry.watch.deliver(Lost(ENDED_EARLIER))
            else:
                self._note(placing, result)
                if result.state == "placed" and not result.workers and placing.pool not in without_worker:
                    without_worker.append(placing.pool)
        if finished:
            self.means.watches.deliver(launcher.read_outcomes(finished))
        for pool in without_worker:
            self.launch(pool, launcher)

    def _note(self, placing: Placing, placement: Placement) -> None:
        placing.entry.may_run = True
        if placement.handle is None:
            self.means.counts.add("launched")
            return
        attempt = placing.entry.watch.attempt
        if placement.state == "settling":
            logger.info(SETTLING, attempt)
        else:
            logger.info("%s runs already, in background worker %d: attached", attempt, placement.handle.pid)
            self.means.counts.add("attached")
        placing.entry.runs_in(placement.handle, None)
        placing.state = "known" if placement.handle.pid else "sent"

    # --- background workers --------------------------------------------------------------------------

    def launch(self, pool: str, launcher: Launcher | None = None) -> bool:
        """Launch another background worker for a pool, if the line for slots is empty. False if no slot is free."""
        if launcher is None:
            with self.means.launchers.first_free() as free:
                is_launched = free.launch_reusable(pool) is not None
        else:
            is_launched = not len(self.means.line) and launcher.launch_reusable(pool) is not None
        if not is_launched:
            with self._lock:
                waiting = [placing for placing in self._placed if placing.pool == pool]
            for placing in waiting:
                self._want_worker(placing)
        return is_launched

    def _want_worker(self, placing: Placing) -> None:
        if not placing.wants_worker:
            placing.wants_worker = True
            placing.wake()

    # --- looking -------------------------------------------------------------------------------------

    def look(self, placing: Placing) -> None:
        """Check all placed orders, if it is time for this one and no other thread checks or has just checked.

        Raises:
            SessionLost, psycopg.Error: the orders cannot be checked now.
        """
        now = time.monotonic()
        with self._lock:
            if placing.next_look > now or placing.state != "placed":
                return
            placing.pause = min(placing.pause * _LONGER, _LONGEST_PAUSE)
            placing.next_look = now + placing.pause
            between = _BETWEEN_LOOKS if len(self._placed) <= _MANY else _BETWEEN_LOOKS_AT_MANY
            # A stalled check must not prevent another one.
            if now - self._last_look < (_LONGEST_LOOK if self._is_looking else between):
                return
            self._is_looking, self._last_look = True, now
            placed = list(self._placed)
        try:
            with self.means.launchers.first_free() as launcher:
                sights = launcher.look([(one.pool, one.entry.watch.attempt) for one in placed])
                self._see(launcher, dict(zip(placed, sights, strict=True)))
        finally:
            self._is_looking = False

    def _see(self, launcher: Launcher, seen: dict[Placing, Sight]) -> None:
        unnoticed = []
        stuck: dict[str, list[Placing]] = {}
        for placing, sight in seen.items():
            strange_before, placing.strange_looks = placing.strange_looks, 0
            if sight.state == "waiting":
                if time.monotonic() - placing.placed_at > _BETWEEN_LOOKS:
                    stuck.setdefault(placing.pool, []).append(placing)
            elif sight.handle is not None and sight.state in ("taken", "gone"):
                self._know(placing, sight.handle)
            elif strange_before + 1 < _LOOKS_TO_BELIEVE:
                placing.strange_looks = strange_before + 1
            elif sight.state == "finished":
                unnoticed.append(placing.entry.watch.attempt)
            else:
                placing.entry.watch.deliver(Lost("its order is gone without an outcome"))
        if unnoticed:
            self.means.watches.deliver(launcher.read_outcomes(unnoticed))
        for pool, waiting in stuck.items():
            self._help(pool, waiting, seen[waiting[0]], launcher)

    def _know(self, placing: Placing, handle: Handle) -> None:
        with self._lock:
            self._placed.pop(placing, None)
        placing.entry.runs_in(handle, next((one for one in self.means.launchers if one.owns(handle)), None))
        placing.wants_worker = False
        placing.state = "known"
        placing.wake()

    def _help(self, pool: str, waiting: list[Placing], sight: Sight, launcher: Launcher) -> None:
        """Launch background workers if the present ones do not take the waiting orders.

        If they take nothing: for half of the waiting orders, because some may be taken in the meantime. If they are
        too slow: only one more, because on a busy machine more do not help.
        """
        patience = time.monotonic() - min(placing.placed_at for placing in waiting)
        missing = len(waiting) - (sight.free_workers if patience < _LONGEST_PAUSE else 0)
        if missing <= 0:
            return
        number = (missing + 1) // 2 if sight.workers else 1
        if sight.workers and (sight.taken_ms_ago or 0) < _STANDSTILL_MS:
            if self._seconds_to_take(pool, sight) * missing < _LONGEST_QUEUE:
                return
            number = 1
        try:
            for _ in range(number):
                if not self.launch(pool, launcher):
                    break
        except PASSING:
            raise
        except (psycopg.Error, ConfigurationError) as exc:
            self._fail(waiting, exc)

    def _fail(self, waiting: list[Placing], error: Exception) -> None:
        """Fail these orders: the server refuses background workers for them."""
        for placing in waiting:
            with self._lock:
                self._placed.pop(placing, None)
            placing.state, placing.error = "failed", error
            placing.wake()

    def _seconds_to_take(self, pool: str, sight: Sight) -> float:
        """Recent seconds for each order; 0 if unknown."""
        turns = _Turns(sight.turns or 0, time.monotonic())
        before = self._turns.get(pool)
        if before is None or turns.at - before.at > _LONGEST_PAUSE or turns.number < before.number:
            self._turns[pool] = turns
            return 0.0
        if turns.at - before.at < _RATE_SECONDS:
            return 0.0
        self._turns[pool] = turns
        return (turns.at - before.at) / max(turns.number - before.number, 1)
