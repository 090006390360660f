"""Everything about one task, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg

from celery_pgbg.operating.printing import safe
from celery_pgbg.operating.times import for_people

#: Fields of an error in the order of importance, by their names in psycopg's Diagnostic.
_FIELDS = {
    "message_detail": "detail",
    "message_hint": "hint",
    "schema_name": "schema",
    "table_name": "table",
    "column_name": "column",
    "datatype_name": "type",
    "constraint_name": "constraint",
    "context": "context",
}

#: Characters of a statement's line shown around the position of its error.
_AROUND = 60


def describe(task_id: str, attempts: list[dict[str, Any]], state: str | None) -> Iterator[str]:
    """Write the rows of ``operations.attempts_of`` for a task."""
    names = {row["task_name"] for row in attempts if row["task_name"]}
    yield f"task      {safe(', '.join(sorted(names)) or 'unknown: the record of its launch is gone')}"
    yield f"id        {safe(task_id)}"
    if state is not None:
        yield f"Celery    {safe(state)}"
    for row in attempts:
        yield ""
        yield from _describe_attempt(row)


def _describe_attempt(row: dict[str, Any]) -> Iterator[str]:
    yield f"attempt {row['attempt']}: {row['state']}" + _meaning(row)
    if row["launched_at"]:
        standing = "" if row["atomic"] else "; stands alone, outside a transaction"
        yield f"  launched  {_moment(row['launched_at'])}, {_times(row['launches'])}{standing}"
        yield f"  by        {safe(row['nodename'])}, as role {safe(row['launched_by'])}"
        yield f"  process   PID {row['pid']}, cookie {row['cookie']}, {safe(row['application_name'])}"
    if row["progress_percent"] is not None:
        yield f"  progress  {row['progress_percent']} % {safe(row['progress_message'] or '')}".rstrip()
    if row["waits_for"]:
        yield f"  waits for {row['waits_for']}"
    if row["statement"]:
        yield f"  statement {safe(row['statement'])}"
    if row["finished_at"]:
        taken = (row["finished_at"] - row["started_at"]).total_seconds()
        yield f"  ended     {_moment(row['finished_at'])}, after {for_people(taken)}"
    if row["state"] == "finished":
        yield f"  result    {_result(row)}"
    if row["sqlstate"]:
        yield from _describe_error(row["sqlstate"], row["message"] or "", row["error_fields"] or {})


def _meaning(row: dict[str, Any]) -> str:
    if row["state"] != "gone":
        return ""
    if row["atomic"]:
        return ": no process and no outcome, so its effects are absent; it was revoked, crashed, or ended from outside"
    return ": no process and no outcome; it may have finished, or have partly completed"


def _result(row: dict[str, Any]) -> str:
    if row["command_tag"]:
        return safe(row["command_tag"])
    rows = "no rows" if row["row_count"] is None else "1 row" if row["row_count"] == 1 else f"{row['row_count']} rows"
    return f"{rows}, returned as {row['returns'] or 'rows'}"


def _describe_error(sqlstate: str, message: str, fields: dict[str, Any]) -> Iterator[str]:
    yield f"  error     {error_class(sqlstate)} ({sqlstate}): {safe(message)}"
    yield from (f"            {line}" for line in _place(fields))
    for name, title in _FIELDS.items():
        if fields.get(name):
            yield f"  {title:9} {safe(str(fields[name]))}"


def _place(fields: dict[str, Any]) -> Iterator[str]:
    """Show the line of the statement with the error, with a caret below the position."""
    for query, position in (("statement", "statement_position"), ("internal_query", "internal_position")):
        place = str(fields.get(position) or "")
        if not place.isdigit():
            continue
        text, index = str(fields.get(query) or ""), int(place) - 1
        if not 0 <= index <= len(text):
            continue
        if not text:
            yield f"at character {place} of the statement"
            return
        number, begin = text.count("\n", 0, index) + 1, text.rfind("\n", 0, index) + 1
        before = safe(text[max(begin, index - _AROUND) : index] + "|").removesuffix("|")
        after = safe("|" + text[index : index + _AROUND].partition("\n")[0]).removeprefix("|")
        yield f"LINE {number}: {before}{after}"
        yield " " * (len(f"LINE {number}: ") + len(before)) + "^"
        return


def error_class(sqlstate: str | None) -> str:
    """Name psycopg's class for an SQLSTATE."""
    try:
        return psycopg.errors.lookup(sqlstate or "").__name__
    except KeyError:
        return sqlstate or ""


def _moment(moment: datetime) -> str:
    return moment.astimezone().isoformat(sep=" ", timespec="seconds")


def _times(launches: int) -> str:
    return "once" if launches == 1 else f"{launches} times"
