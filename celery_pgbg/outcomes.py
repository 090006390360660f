"""How an attempt can end: ``Returned | Raised | Cancelled | Lost``, or be left running: ``Detached``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

#: The values of a task's ``returns=``; ``None`` there means rows if the statement returns rows, else the count.
Returns: TypeAlias = Literal["rows", "row", "value", "count", "command"]


#: Why one of our sessions stopped an attempt and stored its outcome in place of the statement.
StopReason: TypeAlias = Literal["revoked", "broken off", "time limit", "by hand"]

#: Kinds of outcomes that the statement did not store itself: a stop as above, or an unknown end.
Settled: TypeAlias = StopReason | Literal["lost"]

#: SQLSTATEs of a background worker that was ended from outside: first with pg_background 2, then before.
ENDED = ("57014", "57P01")

#: The reason for a statement that stood alone, if none of our sessions saw its end.
UNSEEN = (
    "no session saw how the background worker ended; the statement ran outside a transaction and may have partly "
    "completed"
)


@dataclass(frozen=True, slots=True)
class Returned:
    """The statement succeeded and committed.

    Attributes:
        value: what the task returns, in the shape its ``returns=`` asked for.
        task_meta: the rest of the stored result, if the outcome is the task's result; else None.
    """

    value: Any
    task_meta: dict[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """PostgreSQL's error as it was raised in the background worker.

    Attributes:
        sqlstate: five characters.
        message: the primary message, without "ERROR:".
        fields: the other fields that were set, by their names in ``psycopg.errors.Diagnostic``; and ``excerpt``, the
            wrong line with a caret below it.
        stopped: why we stopped the statement; None if the statement itself raised the error, whatever its text.
        without_outcome: whether a launching session read the error because the background worker could not begin, or
            could not write its outcome.
    """

    sqlstate: str
    message: str
    fields: dict[str, str] = field(default_factory=dict)
    stopped: StopReason | None = None
    without_outcome: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Raised:
    """The statement failed and was rolled back."""

    report: ErrorReport


@dataclass(frozen=True, slots=True)
class Cancelled:
    """We cancelled the statement; its effects are absent."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The background worker is gone without an outcome.

    Attributes:
        reason: what is known, for a person to read.
        effects: ``absent`` for a statement in a transaction that never committed, ``unknown`` for
            one that stood alone.
        hopeless: the attempt has used up its launches.
    """

    reason: str
    effects: Literal["absent", "unknown"] = "absent"
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Detached:
    """We stopped watching; the statement runs on and stores its outcome for the next delivery."""


Ending: TypeAlias = Returned | Raised | Cancelled | Lost | Detached
