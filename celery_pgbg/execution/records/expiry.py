"""Deletes expired outcomes and records in batches: no long transaction, no long wait for other sessions.

Kept records are checked once a day; in between each run begins where the last run ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from celery_pgbg.database.sessions import Session
from celery_pgbg.execution import queries

#: Records in a batch: some tenths of a second.
BATCH_SIZE = 10_000

#: Sorts before every key of a record of the same moment.
_FIRST_KEY = {"last_task_id": "", "last_attempt": -1}

_STEPS = ("expiry_outcomes", "expiry_executions")


@dataclass
class Expired:
    """The counts of a run of deletion.

    Attributes:
        total: records to check, each once as an outcome and once as a launch.
        looked_at: how many of these were checked.
        deleted: outcomes with their launches, and launches without an outcome.
        results: kept, because they are values of stored results.
        chord_parts: kept, because a chord waits for them.
        running: kept, because their statements run.
        earlier: outcomes that a run of the last day has kept for one of these reasons.
        younger: outcomes that are younger than the limit.
        contended: whether another session was deleting, so that a batch was skipped.
    """

    total: int = 0
    looked_at: int = 0
    deleted: int = 0
    results: int = 0
    chord_parts: int = 0
    running: int = 0
    earlier: int = 0
    younger: int = 0
    contended: bool = False


class Expiry:
    """Deletes batch by batch; the batches may come from different sessions.

    Args:
        age: seconds after which outcomes, and launches without an outcome, are deleted.
        batch_size: records.
        counted: whether to count ``total``, ``earlier`` and ``younger``, which reads a whole index.
    """

    def __init__(self, age: float, batch_size: int = BATCH_SIZE, counted: bool = False) -> None:
        self.expired = Expired()
        self._age = age
        self._batch_size = batch_size
        self._counted = counted
        #: From the first moment, or the oldest record, up to the second.
        self._span: tuple[datetime | None, datetime] | None = None
        self._steps = list(_STEPS)
        self._last: dict[str, Any] = {}

    def delete_batch(self, session: Session) -> bool:
        """Delete one batch in one transaction.

        Args:
            session: in autocommit mode.

        Returns:
            Whether there may be more.
        """
        begin_at, before = self._span = self._span or self._begin(session)
        if not self._last:
            self._last = {"last_at": begin_at, **_FIRST_KEY}
        row = self._row(session, self._steps[0], {"before": before, "batch_size": self._batch_size, **self._last})
        if not row.pop("ours"):
            self.expired.contended = True
            return False
        self._last = {name: row.pop(name) for name in self._last}
        in_batch = row["looked_at"]
        if self._steps[0] == "expiry_outcomes":
            # Their launches were deleted with them.
            row["looked_at"] += row["deleted"]
        for name, count in row.items():
            setattr(self.expired, name, getattr(self.expired, name) + count)
        if in_batch < self._batch_size:
            self._steps.pop(0)
            self._last = {}
        if not self._steps:
            session.execute(queries.query("expiry_end"), {"begin_at": begin_at, "before": before})
        return bool(self._steps)

    def _begin(self, session: Session) -> tuple[datetime | None, datetime]:
        row = self._row(session, "expiry_begin", {"age_ms": round(self._age * 1000), "counted": self._counted})
        self.expired.total = row["outcomes"] + row["executions"]
        self.expired.earlier, self.expired.younger = row["earlier"], row["younger"]
        return row["begin_at"], row["before"]

    @staticmethod
    def _row(session: Session, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
        with session.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(queries.query(name), parameters).fetchone()
        assert row is not None
        return row


def delete_expired(session: Session, age: float, show: Callable[[Expired], None] = lambda expired: None) -> Expired:
    """Delete everything older than so many seconds.

    Args:
        session: in autocommit mode.
        age: seconds.
        show: called after each batch.
    """
    expiry = Expiry(age, counted=True)
    while expiry.delete_batch(session):
        show(expiry.expired)
    show(expiry.expired)
    return expiry.expired
