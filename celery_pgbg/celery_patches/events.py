"""Celery's event dispatcher, taught that threads of the pool send events too."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import celery
from celery.events import EventDispatcher

from celery_pgbg.celery_patches.eventloop import LoopCaller


def send_by_loop(app: Any, loop_caller: LoopCaller) -> None:
    """Let the Celery worker's events be sent by its loop's thread, before Celery 5.7.

    There the dispatcher publishes what it has gathered and then forgets all, also what a thread added meanwhile:
    of many quick tasks, a quarter of the events and more.
    """
    if celery.VERSION < (5, 7):
        app.events.dispatcher_cls = type("Dispatcher", (_Dispatcher,), {"loop_caller": loop_caller})
        # An app that has sent a task keeps the old class.
        vars(app.events).pop("Dispatcher", None)


class _Dispatcher(EventDispatcher):
    loop_caller: ClassVar[LoopCaller]

    def send(self, type: str, *args: Any, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        # Those that gather nothing may be of a task's own, and closed soon.
        if self.buffer_group and self.loop_caller.is_elsewhere():
            fields.setdefault("timestamp", time.time())
            self.loop_caller.call(super().send, type, *args, **fields)
            return None
        return super().send(type, *args, **fields)
