"""``pgbg ps``, ``stats``, ``failed`` and ``show``: running, ended and failed tasks."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from datetime import datetime
from typing import Any

import click

from celery_pgbg.broker import browsing
from celery_pgbg.execution.control import operations
from celery_pgbg.operating.commands import (
    Moment,
    TimeSpan,
    command,
    database_option,
    full_task_id,
    installed_session,
    json_option,
    limit_option,
    slots_line,
)
from celery_pgbg.operating.messages import print_queues
from celery_pgbg.operating.printing import (
    NARROW,
    WIDE,
    Column,
    attempt_of,
    narrow_row,
    print_table,
    short_ids,
    wide_row,
)
from celery_pgbg.operating.showing import describe, error_class
from celery_pgbg.operating.times import for_people

_HOUR = 3600.0


@click.command()
@click.option("--all", "also_ended", is_flag=True, help="Also show the tasks that ended within --since.")
@click.option(
    "--since", type=TimeSpan(), default=_HOUR, metavar="TIME", help="With --all: how far back; 1h by default."
)
@click.option(
    "--before", type=Moment(), metavar="MOMENT", help="With --all: only tasks that ended earlier, for the next page."
)
@click.option("--wide", is_flag=True, help="Show all columns and whole ids, and do not cut lines.")
@click.option(
    "--watch",
    is_flag=False,
    flag_value=2.0,
    type=click.FloatRange(min=0.1),
    metavar="[SECONDS]",
    help="Repeat every 2 seconds, or every SECONDS.",
)
@limit_option
@json_option
@database_option
@command
def ps(
    app: Any,
    also_ended: bool,
    since: float,
    before: datetime | None,
    wide: bool,
    watch: float | None,
    limit: int,
    as_json: bool,
    alias: str | None,
) -> None:
    """Show the SQL tasks that run: state, time, progress, name, id and statement.

    An id may be cut short; all commands accept the beginning of an id.
    """
    until_interrupted = contextlib.nullcontext() if watch is None else contextlib.suppress(KeyboardInterrupt)
    with until_interrupted, installed_session(app, alias) as session:
        while True:
            rows = operations.executions(session, since if also_ended else 0, limit or None, before)
            if watch is not None and sys.stdout.isatty():
                click.clear()
            if as_json:
                click.echo(json.dumps(rows, default=str))
            else:
                _print_executions(rows, wide, limit)
                click.echo(slots_line(session))
            if watch is None:
                return
            time.sleep(watch)


def _print_executions(rows: list[dict[str, Any]], wide: bool, limit: int) -> None:
    running = sum(row["state"] in ("running", "starting", "waiting") for row in rows)
    more = limit and len(rows) - running > limit
    rows = rows[: running + limit] if limit else rows
    if wide:
        print_table(WIDE, map(wide_row, rows), cut=False)
    else:
        # If lines are not cut, as in a pipe, ids are whole.
        shown = short_ids(row["task_id"] for row in rows) if sys.stdout.isatty() else {}
        print_table(
            NARROW, (narrow_row(row, shown.get(row["task_id"], row["task_id"]) + attempt_of(row)) for row in rows)
        )
    if more:
        last = rows[-1]["finished_at"] or rows[-1]["launched_at"]
        click.echo(
            f"... more tasks ended earlier: --before {last.isoformat()} shows the next ones, --limit 0 shows all"
        )


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.1), default=60, show_default=True, help="How far back.")
@click.option("--queues", "only_queues", is_flag=True, help="Show only the queues of the broker pgbg://.")
@json_option
@database_option
@command
def stats(app: Any, minutes: float, only_queues: bool, as_json: bool, alias: str | None) -> None:
    """Show runs, failures, p50 and p95 of the time for each task, and the queues of the broker pgbg://."""
    with installed_session(app, alias) as session:
        queues = browsing.queues(session) if only_queues or not as_json else []
        if only_queues:
            print_queues(queues, as_json)
            return
        rows = operations.task_statistics(session, minutes * 60)
        slots = slots_line(session)
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    columns = [Column(title) for title in ("TASK", "RUNS", "FAILURES", "P50", "P95")]
    print_table(
        columns,
        (
            (
                row["task_name"], str(row["runs"]), str(row["failures"]), for_people(row["p50_seconds"]),
                for_people(row["p95_seconds"]),
            )
            for row in rows
        ),
    )  # fmt: skip
    click.echo(slots)
    if any(row["waiting"] or row["taken"] or row["consumers"] for row in queues):
        click.echo()
        print_queues(queues, as_json=False)


@click.command()
@click.option("--since", type=TimeSpan(), default=86_400.0, metavar="TIME", help="How far back; 1d by default.")
@click.option("--task", "task_name", metavar="NAME", help="Show only tasks with this name.")
@limit_option
@json_option
@database_option
@command
def failed(app: Any, since: float, task_name: str | None, limit: int, as_json: bool, alias: str | None) -> None:
    """List tasks whose latest attempt failed in the database, the latest failure first."""
    with installed_session(app, alias) as session:
        rows = operations.failures(session, since, limit + 1 if limit else None, task_name)
    more, rows = bool(limit) and len(rows) > limit, rows[:limit] if limit else rows
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    shown = short_ids(row["task_id"] for row in rows) if sys.stdout.isatty() else {}
    columns = (Column("WHEN", 14), Column("TASK", 20), Column("ID", 44), Column("ERROR", 28), Column("MESSAGE", 200))
    print_table(columns, (_failure_row(row, shown.get(row["task_id"], row["task_id"])) for row in rows))
    if not rows:
        click.echo(f"no task has failed within {for_people(since)}")
    if more:
        click.echo("... more tasks failed earlier: --limit N shows N tasks, --limit 0 shows all")


def _failure_row(row: dict[str, Any], task_id: str) -> tuple[str, ...]:
    when = row["finished_at"].astimezone().strftime("%m-%d %H:%M:%S")
    return (when, row["task_name"] or "", task_id + attempt_of(row), error_class(row["sqlstate"]), row["message"] or "")


@click.command()
@click.argument("task_id", metavar="ID")
@json_option
@database_option
@command
def show(app: Any, task_id: str, as_json: bool, alias: str | None) -> None:
    """Show everything known about one SQL task: its attempts, their outcomes and errors, and its state in Celery.

    ID may be the beginning of an id.
    """
    with installed_session(app, alias) as session:
        whole = full_task_id(session, task_id)
        attempts = operations.attempts_of(session, whole)
    if as_json:
        click.echo(json.dumps({"task_id": whole, "attempts": attempts, "state": _state(app, whole)}, default=str))
        return
    for line in describe(whole, attempts, _state(app, whole)):
        click.echo(line)


def _state(app: Any, task_id: str) -> str | None:
    """The state in Celery's result backend, or None without a result backend."""
    if not app.conf.result_backend:
        return None
    try:
        return str(app.AsyncResult(task_id).state)
    except Exception as exc:  # noqa: BLE001 - each result backend has errors of its own
        return f"unknown: {exc}"


@click.command()
@click.option("--listen", type=int, metavar="PORT", help="Serve the numbers on this port of 127.0.0.1, until stopped.")
@database_option
@command
def metrics(app: Any, listen: int | None, alias: str | None) -> None:
    """Print or serve numbers for Prometheus: running tasks, recent failures, background worker slots."""
    try:
        from prometheus_client import CollectorRegistry, generate_latest, start_http_server

        from celery_pgbg.operating.metrics import PgbgCollector
    except ImportError as exc:
        raise click.ClickException('prometheus-client is needed: pip install "celery-pgbg[prometheus]"') from exc
    installed_session(app, alias).close()
    registry = CollectorRegistry()
    registry.register(PgbgCollector(app, alias))
    if listen is None:
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    _, thread = start_http_server(listen, addr="127.0.0.1", registry=registry)
    click.echo(f"http://127.0.0.1:{listen}/metrics")
    with contextlib.suppress(KeyboardInterrupt):
        thread.join()
