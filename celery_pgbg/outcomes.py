"""How an attempt can end: ``Returned | Raised | Cancelled | Lost``, or be left running: ``Detached``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

#: What a task's ``returns=`` may say; ``None`` there means rows where there are rows, else the count.
Returns: TypeAlias = Literal["rows", "row", "value", "count", "command"]


#: Why one of our sessions stopped an attempt, and settled it without its statement.
StopReason: TypeAlias = Literal["revoked", "broken off", "time limit", "by hand"]

#: What an outcome may say that its statement has not left: the same, or that nobody can know what became of it.
Settled: TypeAlias = StopReason | Literal["lost"]

#: SQLSTATEs of a background worker that was made to end: the first with pg_background 2, the second before.
ENDED = ("57014", "57P01")

#: What is said of a statement that stood alone, and whose end nobody of ours saw.
UNSEEN = "its background worker ended unseen; it ran outside a transaction and may have partly completed"


@dataclass(frozen=True, slots=True)
class Returned:
    """The statement succeeded and committed.

    Attributes:
        value: what the task returns, in the shape its ``returns=`` asked for.
        task_meta: what else there is to say of the success, where the outcome is the task's result; else None.
    """

    value: Any
    task_meta: dict[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """PostgreSQL's error as it was raised in the background worker.

    Attributes:
        sqlstate: five characters.
        message: the primary message, without "ERROR:".
        fields: the other fields that were set, by the names of ``psycopg.errors.Diagnostic``; and ``excerpt``, the
            line that is wrong with a caret below it.
        stopped: why we stopped it; None for what the statement itself raised, whatever it says.
        without_outcome: a launching session has read it: the background worker could not begin, or could not write
            its outcome.
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
