"""``celery -A proj pgbg ...``: installing, checking, looking, cancelling."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from typing import Any

import click
import psycopg

from celery_pgbg.database import operations, schema
from celery_pgbg.database.sessions import Session, connect
from celery_pgbg.diagnosis import diagnose
from celery_pgbg.errors import PgbgError
from celery_pgbg.runners import settings_of
from celery_pgbg.tables import EXECUTION_COLUMNS, execution_row, print_table

_NO_FILES = "its files are not on the server: install the package postgresql-18-pg-background there"

database_option = click.option("--database", "alias", metavar="ALIAS", help="One of pgbg_databases; else pgbg_dsn.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the app, and make expected errors messages without tracebacks."""

    @click.pass_context
    @functools.wraps(function)
    def run(context: click.Context, *args: Any, **options: Any) -> None:
        try:
            function(context.obj.app, *args, **options)
        except (PgbgError, psycopg.Error) as exc:
            raise click.ClickException(str(exc).strip()) from exc

    return run


@click.group(name="pgbg")
def pgbg() -> None:
    """SQL tasks in PostgreSQL background workers."""


@pgbg.command()
@click.option("--sql", "print_sql", is_flag=True, help="Print the SQL, for a DBA to run, instead of running it.")
@click.option("--grant-to", multiple=True, metavar="ROLE", help="Let this role launch SQL tasks; may be repeated.")
@click.option("--dsn", help="Connect with this instead: installing the extension needs a superuser.")
@database_option
@command
def install(app: Any, print_sql: bool, grant_to: tuple[str, ...], dsn: str | None, alias: str | None) -> None:
    """Install or upgrade the extension, the schema celery_pgbg and its functions. Run again, it changes nothing."""
    if print_sql:
        click.echo(schema.install_script(list(grant_to)))
        return
    with _session(app, alias, dsn) as session:
        before = schema.installed_version(session)
        version = _install(session, list(grant_to))
        name = session.info.dbname
    click.echo(f"database {name}: celery_pgbg schema version {version}" + ("" if before else ", newly installed"))


def _install(session: Session, grant_to: list[str]) -> int:
    try:
        return schema.install(session, grant_to)
    except psycopg.errors.InsufficientPrivilege as exc:
        raise click.ClickException(
            f"{exc}\nInstalling needs a superuser: use --dsn with one, or give `pgbg install --sql` to your DBA."
        ) from exc
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as exc:
        raise click.ClickException(f"the extension pg_background cannot be created: {_NO_FILES}") from exc


@pgbg.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dsn", help="Connect with this instead.")
@database_option
@command
def uninstall(app: Any, yes: bool, dsn: str | None, alias: str | None) -> None:
    """Drop the schema celery_pgbg with all records, outcomes and results. The extension stays."""
    with _session(app, alias, dsn) as session:
        if not yes:
            click.confirm(f"Drop schema celery_pgbg in database {session.info.dbname}, with all results?", abort=True)
        schema.uninstall(session)
    click.echo("dropped")


@pgbg.command()
@json_option
@database_option
@command
def doctor(app: Any, as_json: bool, alias: str | None) -> None:
    """Check everything that SQL tasks need, and run one. Exit code 1 if something is wrong."""
    findings = list(diagnose(app, alias))
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(
                click.style(f"{finding.level:8}", fg=_COLOURS[finding.level]) + f"{finding.what}: {finding.said}"
            )
    if any(finding.level == "error" for finding in findings):
        raise SystemExit(1)


_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@pgbg.command()
@click.option("--all", "also_ended", is_flag=True, help="Also what ended within the last hour.")
@click.option("--watch", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Again and again.")
@json_option
@database_option
@command
def ps(app: Any, also_ended: bool, watch: float | None, as_json: bool, alias: str | None) -> None:
    """Show the SQL tasks that run, with their background workers' PIDs and their progress."""
    with _installed_session(app, alias) as session:
        while True:
            rows = operations.executions(session, 3600 if also_ended else 0)
            if as_json:
                click.echo(json.dumps(rows, default=str))
            else:
                print_table(EXECUTION_COLUMNS, map(execution_row, rows))
                click.echo(_slots(session))
            if watch is None:
                return
            time.sleep(watch)
            click.clear()


@pgbg.command()
@click.argument("task_id")
@click.option("--force", is_flag=True, help="Stop the background worker directly, without a Celery worker.")
@database_option
@command
def cancel(app: Any, task_id: str, force: bool, alias: str | None) -> None:
    """Stop a SQL task: revoke it through Celery or, with --force, end its background worker.

    With --force the task fails with QueryCanceled, and a redelivery of its message does not run it again.
    """
    if not force:
        _revoke(app, task_id)
        return
    with _installed_session(app, alias) as session:
        stopped = operations.cancel_by_hand(session, task_id)
    if not stopped:
        raise click.ClickException(f"no background worker runs task {task_id}")
    if all(stopped):
        click.echo("stopped: its effects are rolled back, and it fails with QueryCanceled; no redelivery runs it again")
    else:
        click.echo("stopped: it stood alone, so what it had committed stays")


def _revoke(app: Any, task_id: str) -> None:
    try:
        replies = app.control.revoke(task_id, terminate=True, reply=True, timeout=2) or []
    except Exception as exc:
        # Each transport has errors of its own.
        raise click.ClickException(
            f"the broker cannot be reached: {exc}; --force ends the background worker directly"
        ) from exc
    if not replies:
        raise click.ClickException("no Celery worker answers; --force ends the background worker directly")
    for reply in replies:
        for node, answer in reply.items():
            click.echo(f"{node}: {answer.get('ok', answer)}")


@pgbg.command()
@click.option("--minutes", type=click.FloatRange(min=0.1), default=60, show_default=True)
@json_option
@database_option
@command
def stats(app: Any, minutes: float, as_json: bool, alias: str | None) -> None:
    """Count runs, failures and seconds by task."""
    with _installed_session(app, alias) as session:
        rows = operations.task_statistics(session, minutes * 60)
        slots = _slots(session)
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    columns = ("TASK", "RUNS", "FAILURES", "P50 SECONDS", "P95 SECONDS")
    print_table(
        columns,
        (
            (r["task_name"], str(r["runs"]), str(r["failures"]), f"{r['p50_seconds']:.3f}", f"{r['p95_seconds']:.3f}")
            for r in rows
        ),
    )
    click.echo(slots)


@pgbg.command()
@click.option("--older-than", type=click.FloatRange(min=0), required=True, metavar="SECONDS")
@database_option
@command
def purge(app: Any, older_than: float, alias: str | None) -> None:
    """Delete outcomes and records that are older, and so forget that those attempts have run."""
    with _installed_session(app, alias) as session:
        deleted = operations.purge(session, older_than)
    click.echo(f"deleted {deleted} records")


def _session(app: Any, alias: str | None, dsn: str | None = None) -> Session:
    settings = settings_of(app)
    target = dsn or settings.dsn_of(alias)
    return connect(target, application_name="celery pgbg", connect_timeout=settings.connect_timeout)


def _slots(session: Session) -> str:
    slots = operations.slots(session)
    return (
        f"{slots.used} of {slots.server_worker_limit} background worker slots are in use by pg_background, "
        f"{slots.used_by_others} by others"
    )


def _installed_session(app: Any, alias: str | None) -> Session:
    """A session in a database that has our schema; ``SchemaMissing`` tells what to do where it has not."""
    session = _session(app, alias)
    try:
        schema.check_installed(session)
    except BaseException:
        session.close()
        raise
    return session
