"""Shows people the progress of a task."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click
from celery.result import AsyncResult

from celery_pgbg.configuration import settings_of
from celery_pgbg.database.sessions import Session, connect
from celery_pgbg.execution.control import operations
from celery_pgbg.execution.records.progress import read_progress
from celery_pgbg.handles import Attempt

#: Takes percent and message.
_Show = Callable[[int, str], None]


def show_progress(result: AsyncResult, interval: float = 0.5, database: str | None = None) -> Any:
    """Show a bar on standard error until a task has ended, then return its value as ``get`` does.

    It needs the database of the task, not the state PROGRESS of the result backend. If ``rich`` is installed, ``rich``
    draws the bar. If standard error is not a terminal, each change is a line.

    Args:
        result: of a SQL task.
        interval: seconds between two looks.
        database: the alias of the database that runs the task; None for ``pgbg_dsn``.

    Raises:
        ConfigurationError: no such alias, or no ``pgbg_dsn``.
        Exception: the task's error.
    """
    settings = settings_of(result.app)
    dsn = settings.dsn_of(database)
    with (
        connect(dsn, application_name="celery_pgbg progress", connect_timeout=settings.connect_timeout) as session,
        _bar(sys.stderr) as show,
    ):
        while not result.ready():
            percent, message = _progress_of(session, result.id)
            show(percent, message)
            time.sleep(interval)
        if result.successful():
            show(100, "")
    return result.get()


def _progress_of(session: Session, task_id: str) -> tuple[int, str]:
    attempts = operations.attempts_of(session, task_id)
    if not attempts:
        return 0, "waits"
    latest = Attempt(task_id, attempts[-1]["attempt"])
    progress = read_progress(session, [latest]).get(latest)
    return (progress.percent or 0, progress.message or "") if progress else (0, "runs")


@contextmanager
def _bar(stream: TextIO) -> Iterator[_Show]:
    if not stream.isatty():
        yield _Lines(stream).show
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        with click.progressbar(length=100, file=stream, item_show_func=lambda message: message or "") as bar:
            yield lambda percent, message: bar.update(percent - bar.pos, message)
        return
    with Progress(console=Console(file=stream)) as drawn:
        line = drawn.add_task("", total=100)
        yield lambda percent, message: drawn.update(line, completed=percent, description=message)


class _Lines:
    """One line for each change."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: tuple[int, str] | None = None

    def show(self, percent: int, message: str) -> None:
        if (percent, message) != self._last:
            self._last = percent, message
            self._stream.write(f"{percent} % {message}".rstrip() + "\n")
            self._stream.flush()
