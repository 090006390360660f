"""What the installed pg_background can do, found by looking, never by its version."""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg import sql
from psycopg.rows import class_row

from celery_pgbg.database import queries
from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import ConfigurationError, ExtensionMissing

#: Each function we use: the name of 2.0 first, then the one before. The first that is there is taken.
_NAMES = {
    "launch": ("pg_background_launch", "pg_background_launch_v2"),
    "submit": ("pg_background_submit", "pg_background_submit_v2"),
    "cancel": ("pg_background_cancel", "pg_background_cancel_v2"),
    "detach": ("pg_background_detach", "pg_background_detach_v2"),
    "list": ("pg_background_list", "pg_background_list_v2"),
    "result": ("pg_background_result", "pg_background_result_v2"),
    "stats": ("pg_background_stats", "pg_background_stats_v2"),
    "get_progress": ("pg_background_get_progress", "pg_background_get_progress_v2"),
    "error_info": ("pg_background_error_info", "pg_background_error_info_v2"),
    "report_progress": ("pg_background_report_progress", "pg_background_progress"),
}
_REQUIRED = ("launch", "cancel", "detach", "list", "result")

#: Present from 1.6 on; the older lines have names of 2.0's with other arguments.
_FIRST_V2 = "pg_background_launch_v2"

_LIST_COLUMNS = (
    "pid int4, cookie int8, launched_at timestamptz, user_id oid, queue_size int4, "
    "state text, sql_preview text, last_error text, consumed bool"
)


@dataclass(frozen=True)
class Capabilities:
    """The installed pg_background, and what this role may do with it.

    Attributes:
        schema: where the extension lives.
        version: the extension's version, for people only.
        functions: names of all its functions.
        server_worker_limit: ``max_worker_processes``.
        may_launch: whether this role has the privilege.
        server_version: as ``server_version_num``.
    """

    schema: str
    version: str
    functions: list[str] = field(repr=False)
    server_worker_limit: int
    may_launch: bool
    server_version: int

    def name(self, function: str) -> str | None:
        """Find the installed name of one of our words for a function, or None."""
        return next((name for name in _NAMES[function] if name in self.functions), None)

    def identifier(self, function: str) -> sql.Identifier:
        """Name an installed function for a query.

        Raises:
            ExtensionMissing: this pg_background has no such function.
        """
        name = self.name(function)
        if name is None:
            raise ExtensionMissing(f"pg_background {self.version} has no {' or '.join(_NAMES[function])}")
        return sql.Identifier(self.schema, name)

    @property
    def list_columns(self) -> sql.SQL:
        """Column definitions that ``list`` needs."""
        labels = "pg_background_outcome" in self.functions or "pg_background_error_info_v2" in self.functions
        return sql.SQL(_LIST_COLUMNS + ", label text" if labels else _LIST_COLUMNS)


def detect(session: Session) -> Capabilities:
    """Look at the extension of a session's database.

    Raises:
        ExtensionMissing: not there, or before 1.6.
        ConfigurationError: this role may not launch background workers.
    """
    with session.cursor(row_factory=class_row(Capabilities)) as cursor:
        found = cursor.execute(queries.query("capabilities")).fetchone()
    database = session.info.dbname
    if found is None:
        raise ExtensionMissing(
            f"database {database!r} has no extension pg_background: "
            "run `celery -A yourproject pgbg install` as a superuser"
        )
    missing = [name for name in _REQUIRED if found.name(name) is None]
    if missing or not {_FIRST_V2, "pg_background_outcome"} & set(found.functions):
        raise ExtensionMissing(
            f"pg_background {found.version} in database {database!r} is too old: 1.6 or later is needed"
        )
    if not found.may_launch:
        raise ConfigurationError(
            f"role {session.info.user!r} may not launch background workers in database {database!r}: "
            f"run `celery -A yourproject pgbg install --grant-to {session.info.user}` as a superuser"
        )
    return found
