"""The rows of the result backend, as they are written and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.outcomes import Returned, Returns

#: The field of an outcome's ``task_meta`` for its deletion in time.
KEPT_SECONDS = "kept_seconds"


def said_by(task_meta: Mapping[str, Any]) -> dict[str, Any]:
    """Take Celery's part out of an outcome's ``task_meta``."""
    return {name: value for name, value in task_meta.items() if name != KEPT_SECONDS}


@dataclass(frozen=True)
class Payload:
    """A value as a serializer encoded it; kombu's names for the encoding go with it."""

    content_type: str
    content_encoding: str
    value: bytes | None


@dataclass(frozen=True)
class Reference:
    """Says that a task's value is the outcome of an attempt, if this database has it."""

    task_name: str
    attempt: int


@dataclass(frozen=True)
class ResultRow:
    """What is stored of a task's state besides its value; ``details`` is encoded like the value."""

    task_id: str
    status: str
    details: bytes | None
    traceback: str | None
    date_done: datetime | None
    group_id: str | None
    parent_id: str | None
    name: str | None
    worker: str | None
    retries: int | None
    queue: str | None


@dataclass(frozen=True)
class OutcomeColumns:
    """The part of a row that comes from ``celery_pgbg.outcome``; ``attempt`` is None where there is none."""

    attempt: int | None
    finished_at: datetime | None
    returns: Returns | None
    row_count: int | None
    command_tag: str | None
    column_names: str | None
    column_types: bytes | None
    row_texts: list[str] | None

    def outcome_value(self) -> Any:
        """Decode the outcome of a success, as psycopg would.

        Raises:
            psycopg.DataError: Python has no such value, for example a date before the year 1.
        """
        assert self.attempt is not None
        outcome = StoredOutcome(
            task_id="",
            attempt=self.attempt,
            succeeded=True,
            returns=self.returns,
            row_count=self.row_count,
            command_tag=self.command_tag,
            column_names=self.column_names,
            column_types=self.column_types,
            row_texts=self.row_texts,
        )
        ending = outcome.ending()
        assert isinstance(ending, Returned)
        return ending.value


@dataclass(frozen=True)
class StoredResult(OutcomeColumns):
    """One row of ``result_read.sql``: the backend's row, if any, and the outcome, if any."""

    task_id: str
    forgotten: bool
    status: str | None
    content_type: str | None
    content_encoding: str | None
    value: bytes | None
    outcome_attempt: int | None
    details: bytes | None
    traceback: str | None
    date_done: datetime | None
    group_id: str | None
    parent_id: str | None
    name: str | None
    worker: str | None
    retries: int | None
    queue: str | None
    #: what is said of a statement that stood alone and is lost
    loss: str | None = None
    #: what else there is to say of a success, where the outcome is all that is stored
    task_meta: dict[str, Any] | None = None


@dataclass(frozen=True)
class StoredPart(OutcomeColumns):
    """One ended member of a chord's header."""

    task_id: str
    status: str
    content_type: str
    content_encoding: str
    value: bytes | None
    outcome_attempt: int | None
