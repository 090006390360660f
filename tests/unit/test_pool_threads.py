"""The pool's threads, without a server: what they hold."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from types import SimpleNamespace
from typing import Any

from celery import Celery

from celery_pgbg.pool.taskpool import TaskPool
from tests.waiting import eventually


class Value:
    """What a task has made."""


def test_an_idle_thread_holds_nothing_of_the_task_that_it_ran() -> None:
    """A value may have many megabytes, and a thread of a busy pool lives as long as the Celery worker."""
    pool = TaskPool(2, app=Celery("threads", set_as_current=False))
    values: list[weakref.ref[Value]] = []
    both = threading.Barrier(2)

    def target(*args: Any) -> Value:
        both.wait(30)
        value = Value()
        values.append(weakref.ref(value))
        return value

    for _ in range(3):
        runs = [
            pool.on_apply(target, correlation_id=f"task {number}", callback=lambda value: None) for number in (1, 2)
        ]
        references = [weakref.ref(run) for run in runs]
        del runs
        eventually("both have ended", lambda: not pool._busy)
        gc.collect()
        eventually("nothing is held", lambda: not any(ref() for ref in (*references, *values)))  # noqa: B023
    assert len(values) == 6


def test_a_target_that_is_not_celerys_tracer_runs_too() -> None:
    """celery-batches passes its own function with a task, a list of messages, a log level and a log file."""
    app = Celery("batches", set_as_current=False)
    pool = TaskPool(1, app=app)

    @app.task(shared=False)
    def count(messages: list[str]) -> int:
        return len(messages)

    returned: list[Any] = []

    class Caller:
        """Not a request."""

        pid = 0

        def accepted(self, pid: int, when: float) -> None:
            self.pid = pid

    caller = Caller()

    def target(task: Any, args: Any, level: int, file: None) -> Any:
        return task(*args)

    pool.on_apply(
        target,
        (count, (["a", "b"],), 0, None),
        accept_callback=caller.accepted,
        callback=returned.append,
    )
    eventually("it has run", lambda: returned)
    assert (returned, caller.pid) == ([2], os.getpid())


def test_what_a_celery_worker_has_loaded_is_exempt_from_garbage_collection() -> None:
    app = Celery("frozen", set_as_current=False)
    pool = TaskPool(1, app=app)
    try:
        pool._on_ready(SimpleNamespace(pool=TaskPool(1, app=app)))
        assert gc.get_freeze_count() == 0
        pool._on_ready(SimpleNamespace(pool=pool))
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
