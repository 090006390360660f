"""Turns stored outcomes into Python values and errors, with psycopg's own adapters."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import adapt, pq
from psycopg.abc import AdaptContext
from psycopg.types.datetime import IntervalLoader

from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import ErrorReport, Lost, Raised, Returned, Returns, Settled

#: One field of a row as PostgreSQL prints it, and the comma before it; quotes inside quotes are doubled.
_FIELD = re.compile(rb'(?:^|,)(?:"((?:[^"\\]|""|\\.)*)"|([^",]*))', re.DOTALL)

#: Characters that are doubled or escaped inside quotes.
_ESCAPED = re.compile(rb'(["\\])(.)', re.DOTALL)

#: Largest length of an error's field, in characters; ``clipped.sql`` has the same.
_LONGEST_FIELD = 10_000

#: The last line of the context of an error that pg_background passes on, in no language but this.
_PASSED_ON = re.compile(r"^background worker, pid \d+$", re.MULTILINE)

#: The end of the task's own SQL in an error's context: our function's name, in any language of the server's messages,
#: or pg_background's line for an error that it passes on.
_BELOW_THE_TASK = re.compile(
    rf"^.* celery_pgbg\.(?:execute_statement|run_v1|walk_batch|call_procedure)\(text[,)].*$|{_PASSED_ON.pattern}",
    re.MULTILINE,
)


@dataclass(frozen=True)
class StoredOutcome:
    """One row of ``celery_pgbg.outcome``, as ``read_outcomes.sql`` selects it."""

    task_id: str
    attempt: int
    succeeded: bool
    pid: int = 0
    returns: Returns | None = None
    row_count: int | None = None
    command_tag: str | None = None
    column_names: str | None = None
    column_types: bytes | None = None
    row_texts: list[str] | None = None
    sqlstate: str | None = None
    message: str | None = None
    error_fields: dict[str, str | None] | None = None
    settled_as: Settled | None = None
    task_meta: dict[str, Any] | None = None

    @property
    def key(self) -> Attempt:
        """The attempt of this outcome."""
        return Attempt(self.task_id, self.attempt)

    def ending(self) -> Returned | Raised | Lost:
        """Decode it.

        Raises:
            Exception: the error of psycopg's loaders if Python has no such value: ``DataError`` for a date
                before the year 1, ``RecursionError`` for a JSON too deep.
        """
        if self.succeeded:
            return Returned(self._value(), self.task_meta)
        if self.settled_as == "lost":
            return Lost(self.message or "", "unknown")
        fields = {name: value for name, value in (self.error_fields or {}).items() if value}
        return Raised(ErrorReport(self.sqlstate or "XX000", self.message or "", fields, self.settled_as))

    def _value(self) -> Any:
        if self.returns == "command":
            return self.command_tag
        if self.returns == "count":
            return self.row_count
        rows = self._rows()
        names = _names(self.column_names or "{}")
        if self.returns == "rows":
            return [dict(zip(names, row, strict=True)) for row in rows]
        row = next(rows, None)
        if row is None:
            return None
        if self.returns == "row":
            return dict(zip(names, row, strict=True))
        # A row may have no columns.
        return row[0] if row else None

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        """Load one row after another, as psycopg does on a plain connection, with the adapters registered now."""
        types = _types(self.column_types or b"\0\0\0\0")
        transformer = adapt.Transformer(_Context() if pq.__impl__ == "python" else None)
        transformer.set_loader_types(types, pq.Format.TEXT)
        for text in self.row_texts or ():
            yield transformer.load_sequence(_fields(text.encode()) if types else ())


@lru_cache(maxsize=256)
def _names(null_row: str) -> list[str]:
    """Names of the columns in order, from a row of NULLs as JSON; two names may be equal."""
    names: list[str] = json.loads(null_row, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
    return names


@lru_cache(maxsize=256)
def _types(null_row: bytes) -> list[int]:
    """OIDs of the columns' types, from a row of NULLs in binary form; a type may have been dropped since."""
    return [oid for oid, _ in struct.iter_unpack("!Ii", null_row[4:])]


def _fields(row: bytes) -> list[bytes | None]:
    """Split a row that PostgreSQL printed. An empty field is NULL; an empty text has quotes."""
    if b'"' not in row:
        return [field or None for field in row[1:-1].split(b",")]
    fields: list[bytes | None] = []
    for match in _FIELD.finditer(row[1:-1]):
        quoted, plain = match.groups()
        fields.append(_ESCAPED.sub(rb"\2", quoted) if quoted is not None else plain or None)
    return fields


class _OwnIntervalLoader(IntervalLoader):
    """Loads intervals without a connection.

    psycopg in pure Python knows an interval's style only from a connection; stored values have PostgreSQL's own
    style.
    """

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._load_method = self._load_postgres


class _Context:
    """psycopg's adapters with our own adapter for intervals, without a connection."""

    connection = None

    def __init__(self) -> None:
        self.adapters = adapt.AdaptersMap(psycopg.adapters)
        interval = self.adapters.types["interval"].oid
        if self.adapters.get_loader(interval, pq.Format.TEXT) is IntervalLoader:
            self.adapters.register_loader(interval, _OwnIntervalLoader)


def to_exception(report: ErrorReport) -> psycopg.Error:
    """Make the exception that psycopg itself would have raised, ``sqlstate`` and ``diag`` included."""
    try:
        kind = psycopg.errors.lookup(report.sqlstate)
    except KeyError:
        kind = psycopg.errors.get_base_exception(report.sqlstate)
    fields = {**report.fields, "context": own_context(report.fields.get("context", ""))}
    lines = [report.message]
    if excerpt := fields.pop("excerpt", None):
        lines.append(excerpt)
    for label, name in (("DETAIL", "message_detail"), ("HINT", "message_hint"), ("CONTEXT", "context")):
        if fields.get(name):
            lines.append(f"{label}:  {fields[name]}")
    info = {pq.DiagnosticField.SQLSTATE: report.sqlstate, pq.DiagnosticField.MESSAGE_PRIMARY: report.message}
    info |= {pq.DiagnosticField[name.upper()]: value for name, value in fields.items() if value}
    return kind("\n".join(lines), info={key: value.encode() for key, value in info.items()})


def from_exception(error: psycopg.Error) -> ErrorReport:
    """Read the fields of a server's error, as a background worker's error arrives in its launcher."""
    fields = {}
    for name in ("message_detail", "message_hint", "schema_name", "table_name", "column_name", "datatype_name"):
        fields[name] = getattr(error.diag, name)
    fields["constraint_name"] = error.diag.constraint_name
    fields["context"] = error.diag.context if is_of_worker(error) else None
    if error.sqlstate == "42601" and error.diag.statement_position and not is_of_worker(error):
        # The position is in the task's statement, because the server was asked about that statement.
        fields["statement_position"] = error.diag.statement_position
        fields["excerpt"] = _excerpt(error)
    present = {name: _clipped(value) for name, value in fields.items() if value}
    message = _clipped(error.diag.message_primary or str(error))
    return ErrorReport(error.sqlstate or "XX000", message, present, without_outcome=True)


def _clipped(field: str) -> str:
    """Clip texts that would fill logs and tables."""
    if len(field) <= _LONGEST_FIELD:
        return field
    return f"{field[:_LONGEST_FIELD]} ... (clipped, {len(field)} characters)"


def _excerpt(error: psycopg.Error) -> str | None:
    """The wrong line of the statement and the caret below it, as libpq adds them to the message."""
    message, primary = str(error), error.diag.message_primary or ""
    if not message.startswith(primary):
        return None
    lines = message[len(primary) :].lstrip("\n").split("\n")[:2]
    return "\n".join(lines) if lines[-1].strip() == "^" else None


def is_of_worker(error: psycopg.Error) -> bool:
    """Check whether an error is the background worker's own, not an error about its handle."""
    return "background worker" in (error.diag.context or "")


def had_begun(report: ErrorReport) -> bool:
    """Whether a background worker was inside the call that it was launched for: the context has a line of that.

    Which lines these are does not matter: they are translated, and a long context is clipped.
    """
    return bool(_PASSED_ON.split(report.fields.get("context", ""))[0].strip())


def own_context(context: str) -> str:
    """An error's context as if a client had sent the statement; it is often empty."""
    below = _BELOW_THE_TASK.search(context)
    if below is None:
        return context
    own = "\n" + context[: below.start()]
    if "celery_pgbg." in below.group() and not below.group().endswith(("FETCH", "MOVE")):
        # EXECUTE and OPEN add the whole statement with all its values.
        added = own.rfind('\nSQL statement "')
        if added < 0 and not below.group().startswith("PL/pgSQL function"):
            # In other languages that line cannot be recognised.
            return ""
        own = own[:added] if added >= 0 else own
    return own.strip("\n")
