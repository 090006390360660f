"""``celery -A proj pgbg ...``: the group of commands; installing and checking."""

from __future__ import annotations

import json
from typing import Any

import click
import psycopg

from celery_pgbg.database import schema
from celery_pgbg.database.sessions import Session
from celery_pgbg.operating import acting, batches, looking, messages
from celery_pgbg.operating.commands import command, database_option, json_option, new_session
from celery_pgbg.operating.diagnosis import diagnose, no_files


@click.group(name="pgbg")
def pgbg() -> None:
    """SQL tasks in PostgreSQL background workers."""


@pgbg.command()
@click.option("--sql", "print_sql", is_flag=True, help="Print the SQL, for a DBA to run, instead of running it.")
@click.option("--grant-to", multiple=True, metavar="ROLE", help="Let this role launch SQL tasks; may be repeated.")
@click.option(
    "--share-with",
    metavar="ROLE",
    help="Let the roles of --grant-to read and write everything that belongs to this role, such as a web "
    "application the results of its Celery workers. Only for roles that trust each other.",
)
@click.option(
    "--let-send",
    multiple=True,
    metavar="ROLE",
    help="Let this role send through pgbg:// and nothing else; may be repeated.",
)
@click.option("--dsn", help="Connect with this DSN: installing the extension needs a superuser.")
@database_option
@command
def install(
    app: Any,
    print_sql: bool,
    grant_to: tuple[str, ...],
    share_with: str | None,
    let_send: tuple[str, ...],
    dsn: str | None,
    alias: str | None,
) -> None:
    """Install or upgrade the extension, the schema celery_pgbg and its functions. A second run changes nothing."""
    if print_sql:
        click.echo(schema.install_script(list(grant_to), share_with=share_with, senders=list(let_send)))
        return
    with new_session(app, alias, dsn) as session:
        before = schema.installed_version(session)
        version = _install(session, list(grant_to), share_with, list(let_send))
        name = session.info.dbname
    click.echo(f"database {name}: celery_pgbg schema version {version}" + ("" if before else ", newly installed"))


def _install(session: Session, grant_to: list[str], share_with: str | None, senders: list[str]) -> int:
    try:
        return schema.install(session, grant_to, share_with, senders)
    except psycopg.errors.InsufficientPrivilege as exc:
        grant = f"--grant-to {session.info.user}"
        raise click.ClickException(
            f"{exc}\nInstalling needs a superuser: use --dsn with one, and {grant}; or give the output of "
            f"`pgbg install --sql {grant}` to your DBA."
        ) from exc
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as exc:
        major = session.info.server_version // 10_000
        raise click.ClickException(f"the extension pg_background cannot be created: {no_files(major)}") from exc
    except (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter) as exc:
        # Our own script is ASCII.
        encoding = session.info.parameter_status("server_encoding")
        raise click.ClickException(
            f"{exc}\nThe extension's own script has characters that databases in {encoding} cannot read: "
            "use a database with UTF8."
        ) from exc
    except psycopg.errors.LockNotAvailable as exc:
        raise click.ClickException(
            f"{exc}\nA transaction has locked what is to be changed. Waiting longer would stop all SQL tasks, so "
            "nothing was changed: run the command again later."
        ) from exc


@pgbg.command()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dsn", help="Connect with this DSN.")
@database_option
@command
def uninstall(app: Any, yes: bool, dsn: str | None, alias: str | None) -> None:
    """Drop the schema celery_pgbg with all records, outcomes and results. The extension stays."""
    with new_session(app, alias, dsn) as session:
        if not yes:
            click.confirm(f"Drop schema celery_pgbg in database {session.info.dbname}, with all results?", abort=True)
        schema.uninstall(session)
    click.echo("dropped")


@pgbg.command()
@json_option
@database_option
@command
def doctor(app: Any, as_json: bool, alias: str | None) -> None:
    """Check everything that SQL tasks need, and run a statement. Exit code 1 if something is wrong."""
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


for more in (looking.ps, looking.show, looking.failed, looking.stats, looking.metrics):
    pgbg.add_command(more)
for more in (acting.cancel, acting.retry, acting.purge, batches.pause, batches.resume):
    pgbg.add_command(more)
for more in (messages.messages, messages.relay):
    pgbg.add_command(more)
