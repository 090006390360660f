"""Celery's event dispatcher, extended for events that the pool's threads send."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import celery
from celery.events import EventDispatcher

from celery_pgbg.celery_patches.eventloop import LoopCaller


def send_by_loop(app: Any, loop_caller: LoopCaller) -> None:
    """Before Celery 5.7, let the loop's thread send the Celery worker's events.

    There the dispatcher publishes the collected events and then clears all, including events that a thread added
    during that time: with many quick tasks, a quarter of the events and more.
    """
    if celery.VERSION < (5, 7):
        app.events.dispatcher_cls = type("Dispatcher", (_Dispatcher,), {"loop_caller": loop_caller})
        # Sending a task caches the old class; drop it.
        vars(app.events).pop("Dispatcher", None)


class _Dispatcher(EventDispatcher):
    loop_caller: ClassVar[LoopCaller]

    def send(self, type: str, *args: Any, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        # A dispatcher that collects no events may belong to a task, and close soon.
        if self.buffer_group and self.loop_caller.is_elsewhere():
            fields.setdefault("timestamp", time.time())
            self.loop_caller.call(super().send, type, *args, **fields)
            return None
        return super().send(type, *args, **fields)
