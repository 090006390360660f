"""Tables and texts for a terminal. Ids, names and messages are untrusted, so their control characters are escaped."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from celery_pgbg.operating.times import for_people

#: Largest width of an id or a name, in columns of the terminal.
_LONGEST_NAME = 64
_LONGEST_STATEMENT = 200

#: Least number of characters of a task id in a narrow table; more if two ids begin alike.
_SHORT_ID = 8


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its first line.
        longest: largest width of a value, in columns of the terminal; a longer value is cut, with an ellipsis.
    """

    title: str
    longest: int = _LONGEST_NAME


NARROW = (
    Column("STATE", 8), Column("TIME", 6), Column("DONE", 5), Column("TASK", 20), Column("ID", 40),
    Column("STATEMENT", _LONGEST_STATEMENT),
)  # fmt: skip
WIDE = (
    Column("STATE", 8), Column("TIME", 6), Column("STARTED", 14), Column("PROGRESS", 40), Column("TASK"), Column("ID"),
    Column("PID", 10), Column("COOKIE", 20), Column("LAUNCHES", 8), Column("WAITS FOR", 40), Column("CELERY WORKER"),
    Column("STATEMENT", _LONGEST_STATEMENT),
)  # fmt: skip


def narrow_row(row: dict[str, Any], task_id: str) -> tuple[str, ...]:
    """Write one row of ``operations.executions``, with the most important columns."""
    percent = "" if row["progress_percent"] is None else f"{row['progress_percent']} %"
    return (_state(row), for_people(row["seconds"]), percent, row["task_name"], task_id, row["statement"])


def wide_row(row: dict[str, Any]) -> tuple[str, ...]:
    """Write one row of ``operations.executions``, with all columns."""
    percent = row["progress_percent"]
    progress = "" if percent is None else f"{percent} % {row['progress_message'] or ''}"
    started = row["launched_at"].astimezone().strftime("%m-%d %H:%M:%S")
    return (
        _state(row), for_people(row["seconds"]), started, progress, row["task_name"], row["task_id"] + attempt_of(row),
        str(row["pid"]), str(row["cookie"]), str(row["launches"]), row["waits_for"] or "", row["nodename"],
        row["statement"],
    )  # fmt: skip


def _state(row: dict[str, Any]) -> str:
    return "paused" if row["is_paused"] and row["state"] == "running" else str(row["state"])


def attempt_of(row: dict[str, Any]) -> str:
    """Name the attempt, unless it is the first."""
    return f" #{row['attempt']}" if row["attempt"] else ""


def short_ids(task_ids: Iterable[str]) -> dict[str, str]:
    """Cut ids so that each is still the beginning of only one id; all commands accept such a beginning."""
    whole = sorted(set(task_ids))
    length = _SHORT_ID
    while length < _LONGEST_NAME and len({task_id[:length] for task_id in whole}) < len(whole):
        length += 4
    return {task_id: task_id[:length] for task_id in whole}


def safe(text: str) -> str:
    """Make a text one harmless line for a terminal: control characters become escapes, white space becomes a blank."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], cut: bool = True) -> None:
    """Print columns as wide as their widest value.

    Args:
        columns: their titles and greatest widths.
        rows: values, which are untrusted.
        cut: whether to cut lines at the edge of the terminal.
    """
    lines = [[_clipped(safe(value), c.longest) for value, c in zip(row, columns, strict=True)] for row in rows]
    lines.insert(0, [column.title for column in columns])
    widths = [max(_width(line[number]) for line in lines) for number in range(len(columns))]
    edge = shutil.get_terminal_size().columns if cut and sys.stdout.isatty() else None
    for line in lines:
        text = "  ".join(
            value + " " * (width - _width(value)) for value, width in zip(line, widths, strict=True)
        ).rstrip()
        click.echo(text if edge is None else _clipped(text, edge))


def _clipped(text: str, longest: int) -> str:
    if len(text) * 2 <= longest or _width(text) <= longest:
        return text
    width = 0
    for place, character in enumerate(text):
        width += _width(character)
        if width > longest - 1:
            return text[:place] + "…"
    return text


def _width(text: str) -> int:
    """The width of a text in columns of a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
