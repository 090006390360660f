"""The database layer in this process, without Celery."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celery_pgbg.execution.runner import Runner
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Cancelled, Raised
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Watch


@pytest.fixture
def new_runner(dsn: str) -> Iterator[Callable[..., Runner]]:
    """Make runners; they are closed at the end."""
    made: list[Runner] = []

    def make(**settings: Any) -> Runner:
        made.append(Runner(dsn, read_settings({"pgbg_dsn": dsn, **settings})))
        return made[-1]

    yield make
    for runner in made:
        runner.close()


@pytest.fixture
def runner(new_runner: Callable[..., Runner]) -> Runner:
    """A runner with the usual settings."""
    return new_runner()


def order(query: str, task_id: str | None = None, **fields: Any) -> Order:
    """An order of a test."""
    attempt = Attempt(task_id or str(uuid.uuid4()))
    return Order(
        **{"attempt": attempt, "task_name": "test", "nodename": "test", "query": query, "params": {}, **fields}
    )


def run(runner: Runner, asked: Order) -> Any:
    """Run an order to its end."""
    return runner.run(asked, Watch(asked.attempt))


def in_background(runner: Runner, asked: Order) -> tuple[Watch, threading.Thread, list[Any]]:
    """Run an order in a thread."""
    watch = Watch(asked.attempt)
    endings: list[Any] = []
    thread = threading.Thread(target=lambda: endings.append(runner.run(asked, watch)), daemon=True)
    thread.start()
    return watch, thread, endings


def is_revoked(ending: Any) -> bool:
    """Whether a statement was revoked: by this wait itself, or by another whose revoke is the outcome."""
    return ending == Cancelled() or (isinstance(ending, Raised) and ending.report.stopped == "revoked")
