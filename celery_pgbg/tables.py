"""Tables as ``pgbg ps`` and ``pgbg stats`` print them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from typing import Any

import click

EXECUTION_COLUMNS = (
    "TASK ID", "TASK", "PID", "COOKIE", "STATE", "STARTED", "SECONDS", "PROGRESS", "WAITS FOR", "CELERY WORKER",
    "STATEMENT",
)  # fmt: skip


def execution_row(row: dict[str, Any]) -> tuple[str, ...]:
    """Write one of ``operations.executions`` for people."""
    attempt = f" #{row['attempt']}" if row["attempt"] else ""
    progress = "" if row["progress_percent"] is None else f"{row['progress_percent']} % {row['progress_message'] or ''}"
    seconds = f"{row['seconds']:.1f}"
    started = row["launched_at"].astimezone().strftime("%H:%M:%S")
    statement = " ".join(row["statement"].split())
    return (
        row["task_id"] + attempt, row["task_name"], str(row["pid"]), str(row["cookie"]), row["state"], started,
        seconds, progress.strip(), row["waits_for"] or "", row["nodename"], statement[:60],
    )  # fmt: skip


def print_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print columns as wide as their widest value, each line cut at the edge of the terminal."""
    lines = [columns, *rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    edge = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines:
        click.echo("  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()[:edge])
