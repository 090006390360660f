"""Installs and checks the schema ``celery_pgbg``."""

from __future__ import annotations

import psycopg
from psycopg import errors, sql

from celery_pgbg.database import queries
from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import ConfigurationError, ExtensionMissing, SchemaMissing

#: Functions that other functions need at creation come first; the rest are resolved at run time.
_FIRST_FUNCTIONS = ("lock_key", "owner", "name_key")


def migration_names() -> list[str]:
    """List the migrations in the order of their numbers, as ``0001_what_it_does``."""
    return queries.names("migrations")


def current_version() -> int:
    """The number of this package's newest migration."""
    return int(migration_names()[-1].partition("_")[0])


def install_script(
    grant_to: list[str], up_to: int | None = None, share_with: str | None = None, senders: list[str] | None = None
) -> str:
    """Write the installation as one idempotent SQL script, one transaction.

    If a superuser runs the script by hand, it does the same as ``install``.

    Args:
        grant_to: roles that may launch SQL tasks besides the installing one and those of earlier installations.
        up_to: the last migration to apply, without the functions, which belong to the newest one; None: all.
        share_with: the role whose rows the roles of ``grant_to`` act on; None keeps the present one, or else their
            own.
        senders: roles that may send messages through the broker, and nothing else.
    """
    parts = [queries.text("install_prologue"), *_definitions(up_to)]
    if up_to is None:
        parts += [_member(role, share_with) for role in grant_to]
        parts.append(queries.text("install_grants"))
        parts += [_sender(role) for role in senders or []]
    return "\n".join([*parts, "COMMIT;\n"])


def _member(role: str, share_with: str | None) -> str:
    names = {"role": sql.Literal(role), "owner": sql.Literal(share_with)}
    return queries.query("install_member").format(**names).as_string(None)


def _sender(role: str) -> str:
    return queries.query("install_sender").format(role=sql.Identifier(role)).as_string(None)


def _definitions(up_to: int | None = None) -> list[str]:
    """Write the content of our schema: the migrations, then the functions."""
    parts = [queries.text("install_schema")]
    for name in migration_names():
        version = int(name.partition("_")[0])
        if up_to is None or version <= up_to:
            parts.append(_migration(version, name))
    if up_to is None:
        others = [name for name in queries.names("functions") if name not in _FIRST_FUNCTIONS]
        parts += [queries.text(name, "functions") for name in (*_FIRST_FUNCTIONS, *others)]
    return parts


def _migration(version: int, name: str) -> str:
    body = queries.text(name, "migrations").rstrip()
    quoted = sql.SQL(f"$sql$\n{body}\n$sql$")
    return (
        queries.query("install_migration")
        .format(version=sql.Literal(version), name=sql.Literal(name), body=quoted)
        .as_string(None)
    )


def install(
    session: Session,
    grant_to: list[str] | None = None,
    share_with: str | None = None,
    senders: list[str] | None = None,
) -> int:
    """Install or upgrade the extension, the schema and its functions.

    Runs in one transaction; a second run changes nothing.

    Args:
        session: a session of its own, of a superuser or, if the extension exists, of the role that installed the
            schema.
        grant_to: see ``install_script``.
        share_with: see ``install_script``.
        senders: see ``install_script``.

    Returns:
        The version now installed.

    Raises:
        psycopg.Error: the server's refusal, mostly ``InsufficientPrivilege``.
    """
    try:
        session.execute(install_script(grant_to or [], share_with=share_with, senders=senders).encode())
    finally:
        if not session.closed:
            session.rollback()
    return installed_version(session) or 0


def install_within(session: Session) -> None:
    """Install or upgrade the schema in the open transaction, without the extension: for tests."""
    refuse_stranger(session)
    session.execute("\n".join([queries.text("safe_names"), *_definitions(), queries.text("usual_names")]).encode())


def uninstall(session: Session) -> None:
    """Drop the schema with everything in it: records, outcomes, results. The extension stays."""
    session.execute(queries.query("uninstall"))


def installed_version(session: Session) -> int | None:
    """Read the newest applied migration, or None if nothing is installed.

    Raises:
        ConfigurationError: see ``refuse_stranger``.
    """
    refuse_stranger(session)
    try:
        row = session.execute(queries.query("installed_version")).fetchone()
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        return None
    return row[0] if row else None


def refuse_stranger(session: Session) -> None:
    """Refuse, for a superuser, a schema ``celery_pgbg`` that another role has prepared.

    Raises:
        ConfigurationError: its owner is not a superuser, but would get a superuser's rights.
    """
    row = session.execute(queries.query("strange_owner")).fetchone()
    if row is not None:
        raise ConfigurationError(
            f"schema celery_pgbg in database {session.info.dbname!r} belongs to role {row[0]!r}, which is not a "
            f"superuser, but role {session.info.user!r} is: functions in the schema would run with a superuser's "
            f"rights. Connect as {row[0]!r}, or inspect the schema, then drop it or give it to a superuser"
        )


def available_extension(session: Session) -> tuple[str, str | None] | None:
    """Read the version of pg_background in the server's files, and the version in the database, if any.

    Returns:
        None if the server has no such files.
    """
    row = session.execute(queries.query("available_extension")).fetchone()
    return None if row is None else (row[0], row[1])


def may_use(session: Session) -> bool:
    """Whether this role has the rights of ``install --grant-to``."""
    row = session.execute(queries.query("may_use")).fetchone()
    return bool(row and row[0])


def check_rights(session: Session, refusal: psycopg.Error, wish: str) -> None:
    """After a refusal by the server: check that the role has the rights of ``install --grant-to``.

    Args:
        session: outside a transaction.
        refusal: the server's.
        wish: what the role wanted to do, for the message.

    Raises:
        ConfigurationError: it has not, as a role of ``install --let-send``.
    """
    if may_use(session):
        return
    user, database = session.info.user, session.info.dbname
    raise ConfigurationError(
        f"role {user!r} may not {wish} in database {database!r} ({refusal.diag.message_primary}); a role of "
        f"`pgbg install --let-send` may only send: run `celery -A yourproject pgbg install --grant-to {user}` as a "
        "superuser"
    ) from refusal


def misfit(session: Session, failure: psycopg.Error) -> ExtensionMissing:
    """Say what to do where the server's files lack a function that pg_background has in the database."""
    files, installed = available_extension(session) or (None, None)
    database, said = session.info.dbname, failure.diag.message_primary
    if files is None or files == installed:
        cure = f"install the files of pg_background {installed or ''} again on the server"
    else:
        cure = (
            f"the server's files are of pg_background {files}, the database has {installed}: run `ALTER EXTENSION "
            "pg_background UPDATE` as a superuser or, if the database has the newer one, update the files"
        )
    return ExtensionMissing(f"pg_background in database {database!r} does not fit the server's files ({said}): {cure}")


def check_installed(session: Session) -> None:
    """Check that the installed schema fits this version of the package.

    Raises:
        SchemaMissing: not installed, or older than this package.
        ConfigurationError: this role may not use it, or is a superuser and its owner is not.
    """
    database, user = session.info.dbname, session.info.user
    try:
        installed = installed_version(session)
    except errors.InsufficientPrivilege as exc:
        raise ConfigurationError(
            f"role {user!r} may not launch SQL tasks in database {database!r}: "
            f"run `celery -A yourproject pgbg install --grant-to {user}` as a superuser"
        ) from exc
    if installed is None:
        raise SchemaMissing(
            f"database {database!r} has no celery_pgbg schema: run `celery -A yourproject pgbg install`"
        )
    if installed < current_version():
        raise SchemaMissing(
            f"the celery_pgbg schema in database {database!r} has version {installed}, this package needs "
            f"{current_version()}: run `celery -A yourproject pgbg install`"
        )
