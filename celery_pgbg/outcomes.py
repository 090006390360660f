"""How an attempt can end: ``Returned | Raised | Cancelled | Lost``, or be left running: ``Detached``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

#: What a task's ``returns=`` may say; ``None`` there means rows where there are rows, else the count.
Returns: TypeAlias = Literal["rows", "row", "value", "count", "command"]


@dataclass(frozen=True, slots=True)
class Returned:
    """The statement succeeded and committed.

    Attributes:
        value: what the task returns, in the shape its ``returns=`` asked for.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """PostgreSQL's error as it was raised in the background worker.

    Attributes:
        sqlstate: five characters.
        message: the primary message, without "ERROR:".
        fields: the other fields that were set, by the names of ``psycopg.errors.Diagnostic``.
    """

    sqlstate: str
    message: str
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Raised:
    """The statement failed and was rolled back."""

    report: ErrorReport


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The statement was cancelled on our demand; its effects are absent."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The background worker is gone without an outcome.

    Attributes:
        reason: what is known, for a person to read.
        effects: ``absent`` for a statement in a transaction that never committed, ``unknown`` for
            one that stood alone.
        hopeless: it was launched so often that another launch would be one too many.
    """

    reason: str
    effects: Literal["absent", "unknown"] = "absent"
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Detached:
    """We stopped watching on demand; the statement runs on and keeps its outcome for the next to ask."""


Ending: TypeAlias = Returned | Raised | Cancelled | Lost | Detached
