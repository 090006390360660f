"""The progress of running statements, as every session sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from psycopg.rows import class_row

from celery_pgbg.database.sessions import Session
from celery_pgbg.execution import queries
from celery_pgbg.handles import Attempt


@dataclass(frozen=True)
class Progress:
    """The progress of an attempt.

    Attributes:
        task_id, attempt: the attempt.
        percent: 0 - 100, None if unknown.
        message: the reported words; None if only the launching session could know them.
        source: the ``statement`` reports it, the ``server`` counts it (VACUUM, CREATE INDEX ...), or it is only on
            ``record``.
    """

    task_id: str
    attempt: int
    percent: int | None
    message: str | None
    source: Literal["statement", "server", "record"]

    @property
    def shown(self) -> tuple[int | None, str | None]:
        """The progress as a text for people."""
        return self.percent, self.message

    def with_message_of(self, reported: tuple[int | None, str | None] | None) -> Progress:
        """Add the message that the statement reported to pg_background, if it was reported with this percent."""
        if self.source != "statement" or reported is None or reported[0] != self.percent:
            return self
        return replace(self, message=reported[1])


def read_progress(session: Session, attempts: list[Attempt]) -> dict[Attempt, Progress]:
    """Read the known progress of attempts, on any session."""
    parameters = {"task_ids": [a.task_id for a in attempts], "attempts": [a.number for a in attempts]}
    with session.cursor(row_factory=class_row(Progress)) as cursor:
        # Planned for the tables as they are now, see docs/decisions/101-*.md.
        rows = cursor.execute(queries.query("read_progress"), parameters, prepare=False).fetchall()
    return {Attempt(row.task_id, row.attempt): row for row in rows}


def publish_progress(session: Session, progress: Mapping[Attempt, Progress]) -> None:
    """Put progress on record."""
    parameters = {
        "task_ids": [attempt.task_id for attempt in progress],
        "attempts": [attempt.number for attempt in progress],
        "percents": [one.percent for one in progress.values()],
        "messages": [one.message for one in progress.values()],
    }
    # Planned for the tables as they are now, see docs/decisions/101-*.md.
    session.execute(queries.query("publish_progress"), parameters, prepare=False)
