"""Statements that run until the test lets go of a lock."""

from __future__ import annotations

import uuid
from typing import Any

from tests.effects import running
from tests.fix_celery import Shop
from tests.waiting import eventually

#: Atomic, and standing alone.
ATOMIC = "INSERT INTO {table} VALUES ('x'); SELECT pg_advisory_xact_lock_shared({key}); SELECT 'done' AS v"
ALONE = "DO $$ BEGIN INSERT INTO {table} VALUES ('x'); PERFORM pg_advisory_xact_lock_shared({key}); END $$"


class Held:
    """A task whose statement runs until ``release``; its result is that of ``shop.statement``."""

    def __init__(self, shop: Shop, table: str, database: Any, task: str = "statement", **options: Any) -> None:
        self._task = shop.task(task)
        self._database = database
        self._key = uuid.uuid4().int % 2**62
        self._text = (ATOMIC if self._task.atomic else ALONE).format(table=table, key=self._key)
        database.execute("SELECT pg_advisory_lock(%s)", [self._key])
        self.result = self._task.apply_async((self._text,), **options)
        self.pid: int = eventually("it runs", lambda: running(database, self.result.id))[0]
        shop.wait_active(self.result)

    def send_again(self, **options: Any) -> Any:
        """Send a copy, of the same task id."""
        return self._task.apply_async((self._text,), task_id=self.result.id, **options)

    def release(self) -> None:
        """Let it end."""
        self._database.execute("SELECT pg_advisory_unlock(%s)", [self._key])
