"""What statements leave behind, and which of them run, seen from a session of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import celery
from psycopg import sql

from tests.waiting import eventually

CELERY_VERSION = tuple(int(part) for part in celery.__version__.split(".")[:2])


def effects(database: Any, table: str) -> list[str]:
    """What tasks have left in a table."""
    return sorted(v for (v,) in database.execute(sql.SQL("SELECT v FROM {}").format(sql.Identifier(table))))


def running(database: Any, task_id: str) -> list[int]:
    """PIDs of the background workers that run a task."""
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_background' AND application_name LIKE %s"
    return [pid for (pid,) in database.execute(query, [f"%{task_id}%"])]


def lose(database: Any, task_id: str) -> None:
    """End the background worker of a task's first attempt, as one of our sessions does that did not launch it."""
    assert database.execute("SELECT celery_pgbg.terminate_attempt(%s, 0)", [task_id]).fetchone() == (True,)


def runs(database: Any, sequence: str) -> int:
    """How often a task has taken a number of a sequence."""
    query = sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(sequence))
    [[value, is_called]] = database.execute(query)
    return int(value) if is_called else 0


def assert_revoked_is_gone(database: Any, task_id: str) -> None:
    """Of a task whose state is REVOKED no background worker runs any more."""
    if CELERY_VERSION == (5, 6):
        # It writes the state before it tells the task.
        eventually("it is gone", lambda: not running(database, task_id))
    assert running(database, task_id) == []


#: A control command holds one of Celery's ten connections to the broker while it takes another: ten at once would wait
#: for one another for ever.
_REVOKING = threading.BoundedSemaphore(5)


def revoke_after(seconds: float, result: Any) -> threading.Timer:
    """Revoke a task in another thread; it is to be joined."""

    def revoke() -> None:
        with _REVOKING:
            result.revoke(terminate=True)

    timer = threading.Timer(seconds, revoke)
    timer.start()
    return timer


@contextmanager
def held(database: Any, key: int) -> Iterator[None]:
    """Hold an advisory lock, which ``shop.insert_when_free`` waits for."""
    database.execute("SELECT pg_advisory_lock(%s)", [key])
    try:
        yield
    finally:
        database.execute("SELECT pg_advisory_unlock(%s)", [key])
