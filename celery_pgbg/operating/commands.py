"""Shared parts of the commands: the app, options, sessions, and errors as messages."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click
import psycopg

from celery_pgbg.configuration import settings_of
from celery_pgbg.database import schema
from celery_pgbg.database.sessions import Session, connect, with_row_security
from celery_pgbg.errors import PgbgError
from celery_pgbg.execution.control import operations
from celery_pgbg.operating.printing import safe
from celery_pgbg.operating.times import read_seconds

database_option = click.option(
    "--database", "alias", metavar="ALIAS", help="An alias of pgbg_databases; pgbg_dsn by default."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit_option = click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=operations.LIMIT,
    show_default=True,
    metavar="N",
    help="Show at most this many, not counting running tasks; 0 for all.",
)


class TimeSpan(click.ParamType):  # type: ignore[type-arg]
    """Seconds, as ``90``, ``15m``, ``1d12h``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or say what it may look like."""
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return read_seconds(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A point of time as ISO 8601 writes it, in local time where it has no zone."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it, or say what it may look like."""
        try:
            return datetime.fromisoformat(str(value)).astimezone()
        except ValueError:
            self.fail(f"expected a moment such as 2026-11-26T17:15:04+00:00, got {value!r}", param, ctx)


_MORE_RIGHTS = (
    "This role may not do that: `pgbg install --grant-to ROLE`, run as a superuser, lets a role run and see tasks; "
    "uninstalling needs the role that installed."
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the app, and make expected errors messages without tracebacks."""

    @click.pass_context
    @functools.wraps(function)
    def run(context: click.Context, *args: Any, **options: Any) -> None:
        try:
            function(context.obj.app, *args, **options)
        except psycopg.errors.InsufficientPrivilege as exc:
            raise click.ClickException(f"{str(exc).strip()}\n{_MORE_RIGHTS}") from exc
        except (PgbgError, psycopg.Error) as exc:
            raise click.ClickException(str(exc).strip()) from exc

    return run


def new_session(app: Any, alias: str | None, dsn: str | None = None) -> Session:
    """Open a session for a command."""
    settings = settings_of(app)
    target = dsn or settings.dsn_of(alias)
    return with_row_security(connect(target, application_name="celery pgbg", connect_timeout=settings.connect_timeout))


def installed_session(app: Any, alias: str | None) -> Session:
    """Open a session in a database that has our schema; ``SchemaMissing`` says what to do where it has not."""
    session = new_session(app, alias)
    try:
        schema.check_installed(session)
    except BaseException:
        session.close()
        raise
    return session


def full_task_id(session: Session, beginning: str) -> str:
    """Complete the beginning of a task id, as ``pgbg ps`` shows it.

    Raises:
        ClickException: no record of such a task, or of several.
    """
    found = operations.tasks_that_begin(session, beginning)
    if len(found) == 1:
        return found[0]
    if found:
        examples = ", ".join(safe(task_id) for task_id in found)
        raise click.ClickException(f"several task ids begin with {safe(beginning)}: {examples}")
    raise click.ClickException(
        f"no record of a SQL task {safe(beginning)} in this database: the task was not launched here, or its record "
        "was deleted after pgbg_outcome_expires"
    )


def slots_line(session: Session) -> str:
    """Say how many background worker slots are in use."""
    slots = operations.slots(session)
    return (
        f"{slots.used} of {slots.server_worker_limit} background worker slots are in use by pg_background, "
        f"{slots.used_by_others} by others"
    )
