"""From stored outcomes to Python values and errors, with psycopg's own adapters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import adapt, pq
from psycopg.abc import AdaptContext
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.datetime import IntervalLoader

from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import ErrorReport, Raised, Returned, Returns

_TEXT_OID = psycopg.adapters.types["text"].oid

#: An OID that no type has, for the record type that lives only in our adapters.
_RECORD_OID = 1

#: Where the context of an error leaves the task's own SQL: our function, in any language of the server's messages,
#: or what pg_background adds to an error that it passes on.
_BELOW_THE_TASK = re.compile(r"^.* celery_pgbg\.run_v1\(text,.*$|^background worker, pid \d+$", re.MULTILINE)


@dataclass(frozen=True)
class StoredOutcome:
    """One row of ``celery_pgbg.outcome``, as ``read_outcomes.sql`` selects it."""

    task_id: str
    attempt: int
    succeeded: bool
    returns: Returns | None = None
    row_count: int | None = None
    command_tag: str | None = None
    column_names: list[str] | None = None
    column_types: list[int] | None = None
    row_texts: list[str] | None = None
    sqlstate: str | None = None
    message: str | None = None
    error_fields: dict[str, str | None] | None = None

    @property
    def key(self) -> Attempt:
        """Whose outcome it is."""
        return Attempt(self.task_id, self.attempt)

    def ending(self) -> Returned | Raised:
        """Decode it.

        Raises:
            Exception: whatever psycopg's loaders raise where Python has no such value: ``DataError`` for a date
                before the year 1, ``RecursionError`` for a JSON too deep.
        """
        if self.succeeded:
            return Returned(self._value())
        fields = {name: value for name, value in (self.error_fields or {}).items() if value}
        return Raised(ErrorReport(self.sqlstate or "XX000", self.message or "", fields))

    def _value(self) -> Any:
        if self.returns == "command":
            return self.command_tag
        if self.returns == "count":
            return self.row_count
        rows = self._rows()
        if self.returns == "rows":
            return [dict(zip(self.column_names or (), row, strict=True)) for row in rows]
        if not rows:
            return None
        if self.returns == "row":
            return dict(zip(self.column_names or (), rows[0], strict=True))
        # A row may have no columns.
        return rows[0][0] if rows[0] else None

    def _rows(self) -> list[tuple[Any, ...]]:
        if not self.row_texts:
            return []
        # A single value is stored without its column's name; a type without a binary form leaves no types.
        width = len(self.column_types or self.column_names or ())
        types = tuple(self.column_types or [_TEXT_OID] * width)
        loader = _row_loader(types)
        return [_of_width(loader.load(text.encode()), width) for text in self.row_texts]


def _of_width(row: Sequence[Any], width: int) -> tuple[Any, ...]:
    """A row of one NULL prints like a row of no columns."""
    return tuple(row) if len(row) == width else (None,) * width


class _OwnIntervalLoader(IntervalLoader):
    """psycopg in pure Python knows an interval's style from a connection only; stored is PostgreSQL's own."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._load_method = self._load_postgres


class _Context:
    """psycopg's adapters with a record type added; values load as without a connection, times as UTC."""

    connection = None

    def __init__(self) -> None:
        self.adapters = adapt.AdaptersMap(psycopg.adapters)
        if pq.__impl__ == "python":
            self.adapters.register_loader("interval", _OwnIntervalLoader)


@lru_cache(maxsize=256)
def _row_loader(types: tuple[int, ...]) -> Any:
    context = _Context()
    names = [f"column_{number}" for number in range(len(types))]
    info = CompositeInfo("pgbg_row", _RECORD_OID, 0, field_names=names, field_types=types)
    register_composite(info, context, factory=_make_tuple)
    loader = context.adapters.get_loader(_RECORD_OID, pq.Format.TEXT)
    assert loader is not None
    return loader(_RECORD_OID, context)


def _make_tuple(*values: Any) -> tuple[Any, ...]:
    return values


def to_exception(report: ErrorReport) -> psycopg.Error:
    """Make the exception that psycopg itself would have raised, ``sqlstate`` and ``diag`` included."""
    try:
        kind = psycopg.errors.lookup(report.sqlstate)
    except KeyError:
        kind = psycopg.errors.get_base_exception(report.sqlstate)
    fields = {**report.fields, "context": _own_context(report.fields.get("context", ""))}
    lines = [report.message]
    for label, name in (("DETAIL", "message_detail"), ("HINT", "message_hint"), ("CONTEXT", "context")):
        if fields.get(name):
            lines.append(f"{label}:  {fields[name]}")
    info = {pq.DiagnosticField.SQLSTATE: report.sqlstate, pq.DiagnosticField.MESSAGE_PRIMARY: report.message}
    info |= {pq.DiagnosticField[name.upper()]: value for name, value in fields.items() if value}
    return kind("\n".join(lines), info={key: value.encode() for key, value in info.items()})


def from_exception(error: psycopg.Error) -> ErrorReport:
    """Take an error of the server apart, as a background worker's error arrives in its launcher."""
    fields = {}
    for name in ("message_detail", "message_hint", "schema_name", "table_name", "column_name", "datatype_name"):
        fields[name] = getattr(error.diag, name)
    fields["constraint_name"] = error.diag.constraint_name
    fields["context"] = error.diag.context if is_of_worker(error) else None
    present = {name: value for name, value in fields.items() if value}
    return ErrorReport(error.sqlstate or "XX000", error.diag.message_primary or str(error), present)


def is_of_worker(error: psycopg.Error) -> bool:
    """Tell a background worker's own error from one about its handle."""
    return "background worker" in (error.diag.context or "")


def _own_context(context: str) -> str:
    """An error's context as it would be had a client sent the statement: often empty."""
    below = _BELOW_THE_TASK.search(context)
    if below is None:
        return context
    own = "\n" + context[: below.start()]
    if "run_v1" in below.group() and not below.group().endswith("FETCH"):
        # EXECUTE and OPEN add the whole statement, with all its values.
        added = own.rfind('\nSQL statement "')
        if added < 0 and not below.group().startswith("PL/pgSQL function"):
            # In another language it cannot be told apart.
            return ""
        own = own[:added] if added >= 0 else own
    return own.strip("\n")
