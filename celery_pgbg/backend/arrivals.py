"""Waiting for results: woken by NOTIFY, and polling now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeout

from celery_pgbg.backend.task_metas import TaskMeta
from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.notifications import Notifications

logger = logging.getLogger(__name__)

#: Pauses between polls while notifications arrive, in seconds: first and longest. They double: a first poll finds
#: early what was missed, later polls are only for safety.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0


class Arrivals:
    """Waits for some tasks to end.

    Args:
        read: reads the task metas of ids; an unknown task is PENDING.
        is_passing: says whether an error of ``read`` is temporary, so that waiting continues.
        max_retries: how many such errors in a row are tolerated.
        notifications: the source of wake-ups.
        poll_interval: seconds between the first polls if notifications do not arrive.
    """

    def __init__(
        self,
        read: Callable[[Collection[str]], dict[str, TaskMeta]],
        is_passing: Callable[[Exception], bool],
        max_retries: float,
        notifications: Notifications,
        poll_interval: float,
    ) -> None:
        self._read = read
        self._is_passing = is_passing
        self._max_retries = max_retries
        self._notifications = notifications
        self._poll_interval = poll_interval
        self._failures = 0
        self._backoff = Backoff()

    def __call__(
        self,
        task_ids: Collection[str],
        timeout: float | None,
        interval: float,
        on_interval: Callable[[], Any] | None,
        also: Collection[str] = (),
        on_also: Callable[[], Any] = lambda: None,
        only_now: bool = False,
    ) -> Iterator[TaskMeta]:
        """Yield each task's meta as it becomes ready.

        Args:
            task_ids: the tasks to wait for.
            timeout: seconds; with 0, existing results are still yielded.
            interval: the longest pause between polls without notifications, and between calls of ``on_interval``.
            on_interval: called now and then; may raise to end the waiting.
            also: other tasks.
            on_also: called when one of these may have ended; may raise to end the waiting.
            only_now: yield only existing results.

        Raises:
            celery.exceptions.TimeoutError: not all became ready in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pending = set(task_ids)
        yield from self._take_ready(pending, pending)
        if not pending or only_now:
            return
        if timeout is not None and timeout <= 0:
            raise CeleryTimeout("The operation timed out.")
        with self._notifications.waiter({*pending, *also}) as waiter:
            looks = _Looks(self._notifications, self._poll_interval, interval)
            slices = interval if on_interval is not None else None
            yield from self._take_ready(pending, pending)
            while pending:
                if deadline is not None and time.monotonic() >= deadline:
                    raise CeleryTimeout("The operation timed out.")
                rung = waiter.wait(looks.seconds(deadline, slices))
                is_due = looks.is_due(deadline)
                yield from self._take_ready(pending, pending if is_due else pending & rung)
                if pending and (is_due or not rung.isdisjoint(also)):
                    on_also()
                if pending and on_interval is not None:
                    on_interval()

    def _take_ready(self, pending: set[str], looked_at: Collection[str]) -> Iterator[TaskMeta]:
        if not looked_at:
            return
        for task_id, meta in self.read(sorted(looked_at)).items():
            if meta["status"] in states.READY_STATES:
                pending.discard(task_id)
                yield meta

    def read(self, task_ids: Collection[str]) -> dict[str, TaskMeta]:
        """Read the metas; while the server cannot be reached, return nothing."""
        try:
            found = self._read(task_ids)
        except Exception as exc:
            self._failures += 1
            if not self._is_passing(exc) or self._failures > self._max_retries:
                raise
            if self._failures == 1:
                logger.warning("results cannot be read for now, still waiting: %s", exc)
            return {}
        self._failures = 0
        return found


class _Looks:
    """Find when to poll without a notification."""

    def __init__(self, notifications: Notifications, poll_interval: float, interval: float) -> None:
        self._notifications = notifications
        self._polling = Backoff(min(poll_interval, interval), interval)
        self._listening = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._was_working = notifications.working
        self._next = time.monotonic() + self._pause()

    def seconds(self, deadline: float | None, slices: float | None) -> float:
        """Find how long to wait from now."""
        if self._notifications.working != self._was_working:
            self._was_working = not self._was_working
            self._next = time.monotonic() + self._pause()
        until = self._next if deadline is None else min(self._next, deadline)
        seconds = max(0.0, until - time.monotonic())
        return seconds if slices is None else min(seconds, slices)

    def is_due(self, deadline: float | None) -> bool:
        """Whether it is time to poll all pending tasks; the last time is at the deadline."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._pause()
            return True
        return deadline is not None and now >= deadline

    def _pause(self) -> float:
        return self._listening.next() if self._was_working else self._polling.next()
