"""The abilities of the installed pg_background, found in the catalog, never by the version."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from celery_pgbg.database import queries
from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import ConfigurationError, ExtensionMissing


@dataclass(frozen=True)
class Function:
    """One of the extension's own functions.

    Attributes:
        name: without its schema.
        arguments: their types, as ``oidvectortypes`` writes them.
        result: its type, or the columns of a composite one, as ``name type, name type``.
        is_granted: whether this role may call it.
    """

    name: str
    arguments: str
    result: str
    is_granted: bool = True

    @property
    def columns(self) -> list[str]:
        """Names of the columns of a composite result."""
        return [column.split(" ")[0] for column in self.result.split(", ")]


_HANDLE = "pid integer, cookie bigint"
_OF_HANDLE = "integer, bigint"

#: Each function we use, as ``name(arguments)``: first 2.0's, then the one of 1.6 to 1.10. Those versions also have the
#: plain names, for another API with a bare PID. The first that exists with this result is used.
_FUNCTIONS = {
    "launch": (_HANDLE, ["pg_background_launch(text, integer)", "pg_background_launch_v2(text, integer)"]),
    "cancel": (
        "void",
        [
            f"{name}({_OF_HANDLE}{grace})"
            for name in ("pg_background_cancel", "pg_background_cancel_v2")
            for grace in (", integer", "")
        ],
    ),
    "detach": ("void", [f"pg_background_detach({_OF_HANDLE})", f"pg_background_detach_v2({_OF_HANDLE})"]),
    "list": ("record", ["pg_background_list()", "pg_background_list_v2()"]),
    "result": ("record", [f"pg_background_result({_OF_HANDLE})", f"pg_background_result_v2({_OF_HANDLE})"]),
    "stats": (None, ["pg_background_stats()", "pg_background_stats_v2()"]),
    "get_progress": (
        "progress_pct integer, progress_msg text",
        [f"pg_background_get_progress({_OF_HANDLE})", f"pg_background_get_progress_v2({_OF_HANDLE})"],
    ),
    "error_info": (None, [f"pg_background_error_info({_OF_HANDLE})", f"pg_background_error_info_v2({_OF_HANDLE})"]),
    # 1.9 and 1.10 give no times, without which an end by a signal looks like a success: theirs is not used.
    "result_info": (
        "row_count bigint, command_tag text, completed boolean, has_error boolean, "
        "started_at timestamp with time zone, finished_at timestamp with time zone",
        [f"pg_background_result_info({_OF_HANDLE})", f"pg_background_result_info_v2({_OF_HANDLE})"],
    ),
    "report_progress": (
        "void",
        ["pg_background_report_progress(integer, text)", "pg_background_progress(integer, text)"],
    ),
}
_REQUIRED = ("launch", "cancel", "detach", "list", "result")

_LIST_COLUMNS = (
    "pid integer, cookie bigint, launched_at pg_catalog.timestamptz, user_id pg_catalog.oid, queue_size integer, "
    "state pg_catalog.text, sql_preview pg_catalog.text, last_error pg_catalog.text, consumed boolean"
)

#: Fields of an error, by their names in psycopg's ``Diagnostic``; 1.9 and 1.10 have the first five.
_ERROR_FIELDS = {
    "sqlstate": "sqlstate",
    "message": "message",
    "message_detail": "detail",
    "message_hint": "hint",
    "context": "context",
    "schema_name": "schema_name",
    "table_name": "table_name",
    "column_name": "column_name",
    "constraint_name": "constraint_name",
}


@dataclass(frozen=True)
class Capabilities:
    """The installed pg_background, and this role's rights on it.

    Attributes:
        schema: where the extension lives.
        version: the extension's version, for people only.
        functions: all its functions.
        server_worker_limit: ``max_worker_processes``.
        server_version: as ``server_version_num``.
    """

    schema: str
    version: str
    functions: list[Function] = field(repr=False)
    server_worker_limit: int
    server_version: int

    @cached_property
    def _found(self) -> dict[str, Function]:
        installed = {f"{function.name}({function.arguments})": function for function in self.functions}
        found: dict[str, Function] = {}
        for word, (result, signatures) in _FUNCTIONS.items():
            there = (installed[signature] for signature in signatures if signature in installed)
            for function in there:
                if result in (None, function.result):
                    found.setdefault(word, function)
        return found

    def function(self, word: str) -> Function | None:
        """Find the installed function for one of our names, or None."""
        return self._found.get(word)

    def name(self, word: str) -> str | None:
        """Find its name."""
        function = self.function(word)
        return function.name if function else None

    def identifier(self, word: str) -> sql.Identifier:
        """Name an installed function for a query.

        Raises:
            ExtensionMissing: this pg_background has no such function.
        """
        name = self.name(word)
        if name is None:
            raise ExtensionMissing(f"pg_background {self.version} has no {' or '.join(_FUNCTIONS[word][1])}")
        return sql.Identifier(self.schema, name)

    @property
    def may_launch(self) -> bool:
        """Whether this role has the privilege."""
        function = self.function("launch")
        return function is not None and function.is_granted

    @property
    def keeps_a_handle(self) -> bool:
        """Whether a launching session must always keep a handle.

        Before 2.0, the end of a session's last handle may crash the server.
        """
        return self.name("launch") == "pg_background_launch_v2"

    @property
    def limits_sessions(self) -> bool:
        """Whether there is a ``pg_background.max_workers``: it came with progress, in 1.8."""
        return self.function("get_progress") is not None

    @property
    def list_columns(self) -> sql.SQL:
        """Column definitions for ``list``; labels came with the errors of handles."""
        labels = self.function("error_info") is not None
        return sql.SQL(_LIST_COLUMNS + ", label pg_catalog.text" if labels else _LIST_COLUMNS)

    @property
    def no_grace(self) -> sql.SQL:
        """The last argument of ``cancel``, if it has one.

        The default is not used, because it could choose another function.
        """
        function = self.function("cancel")
        return sql.SQL(", 0" if function is not None and function.arguments.count(",") > 1 else "")

    @property
    def error_fields(self) -> sql.Composable:
        """The columns to select from ``error_info``."""
        function = self.function("error_info")
        has = function.columns if function else []
        columns = [
            sql.SQL("error.{} AS {}").format(sql.Identifier(theirs), sql.Identifier(ours))
            for ours, theirs in _ERROR_FIELDS.items()
            if theirs in has
        ]
        return sql.SQL(", ").join(columns)


def detect(session: Session) -> Capabilities:
    """Examine the extension in a session's database.

    Raises:
        ExtensionMissing: not installed, or before 1.6.
        ConfigurationError: this role may not launch background workers.
    """
    with session.transaction(), session.cursor(row_factory=dict_row) as cursor:
        # The server writes a type with its schema if another type of that name comes first.
        cursor.execute(queries.query("safe_names"))
        row: dict[str, Any] | None = cursor.execute(queries.query("capabilities")).fetchone()
    database = session.info.dbname
    if row is None:
        raise ExtensionMissing(
            f"database {database!r} has no extension pg_background: "
            "run `celery -A yourproject pgbg install` as a superuser"
        )
    found = Capabilities(**{**row, "functions": [Function(**function) for function in row["functions"]]})
    if any(found.function(word) is None for word in _REQUIRED):
        raise ExtensionMissing(
            f"pg_background {found.version} in database {database!r} is too old: 1.6 or later is needed"
        )
    if not found.may_launch:
        raise ConfigurationError(
            f"role {session.info.user!r} may not launch background workers in database {database!r}: "
            f"run `celery -A yourproject pgbg install --grant-to {session.info.user}` as a superuser"
        )
    return found
