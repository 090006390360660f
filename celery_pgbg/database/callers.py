"""Our statements in the caller's transaction, on a connection that another library has opened."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from celery_pgbg.database import queries
from celery_pgbg.errors import SendingFailed

_WANTED = (
    "a connection of psycopg 3 or psycopg2, a SQLAlchemy Connection or Session, or a Django database connection, "
    "with psycopg 3 or psycopg2 under it"
)


class CallersTransaction:
    """Executes our statements in the caller's transaction.

    Args:
        given: the argument of ``sending_in``.

    Raises:
        TypeError: an unknown kind of connection.
    """

    def __init__(self, given: Any) -> None:
        self._connection = _driver_connection(given)
        self._identity: tuple[int, int] | None = None

    def fetch(self, text: str, parameters: Mapping[str, Any]) -> list[Any]:
        """Execute a statement; returns its rows.

        Args:
            text: SQL with ``%(name)s`` in it.
            parameters: their values; a ``bytes`` is a bytea.

        Raises:
            SendingFailed: the caller's connection is lost, or the server gave the statement up.
            Exception: the driver's own errors otherwise. The caller's transaction has failed then.
        """
        if not isinstance(self._connection, psycopg.Connection):
            with self._connection.cursor(cursor_factory=sys.modules["psycopg2.extensions"].cursor) as cursor:
                cursor.execute(text, dict(parameters))
                return list(cursor.fetchall()) if cursor.description else []
        try:
            with psycopg.Cursor(self._connection, row_factory=tuple_row) as cursor:
                cursor.execute(text.encode(), parameters, prepare=False)
                return cursor.fetchall() if cursor.description else []
        except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
            # kombu would treat the original error as a loss of its own connection, and try again.
            raise SendingFailed(
                f"the message was not sent, because the caller's transaction has failed: {str(exc).strip()}"
            ) from exc

    def require(self, identity: tuple[int, int], what: str) -> None:
        """Check that the connection leads to a certain database.

        Args:
            identity: as ``database_identity.sql`` reads it.
            what: our object in that database, for the message.

        Raises:
            SendingFailed: it leads to another database.
        """
        if self._identity is None:
            self._identity = tuple(self.fetch(queries.statement("database_identity"), {})[0])
        if self._identity != tuple(identity):
            raise SendingFailed(
                f"sending_in: the connection leads to another database than {what}, "
                "so sending cannot be part of its transaction"
            )


def _driver_connection(given: Any) -> Any:
    """Find the driver's connection below SQLAlchemy's or Django's."""
    found: Any = given
    if "sqlalchemy" in sys.modules:
        from sqlalchemy import Connection
        from sqlalchemy.orm import Session, scoped_session

        if isinstance(found, (Session, scoped_session)):
            found = found.connection()
        if isinstance(found, Connection):
            found = found.connection.driver_connection
    if hasattr(found, "ensure_connection"):
        # Django's
        found.ensure_connection()
        found = found.connection
    psycopg2 = sys.modules.get("psycopg2.extensions")
    if isinstance(found, psycopg.Connection) or (psycopg2 is not None and isinstance(found, psycopg2.connection)):
        return found
    raise TypeError(f"expected {_WANTED}, got {type(given).__module__}.{type(given).__qualname__}")


_current: ContextVar[CallersTransaction | None] = ContextVar("celery_pgbg_callers_transaction", default=None)


def callers_transaction() -> CallersTransaction | None:
    """The transaction that this thread sends in, if it is in a block of ``sending_in``."""
    return _current.get()


@contextmanager
def sending_in(connection: Any) -> Iterator[None]:
    """Send tasks in the transaction of a connection: its commit sends them, its rollback discards them.

    The connection is one of psycopg 3 or psycopg2, a SQLAlchemy ``Connection`` or ``Session``, or Django's, such as
    ``django.db.connection``. With the broker ``pgbg://`` it leads to the broker's database. With another broker,
    ``celery pgbg relay`` forwards the messages after the commit.

    Raises:
        TypeError: not such a connection.
        SendingFailed: inside the block: it leads to another database.
    """
    token = _current.set(CallersTransaction(connection))
    try:
        yield
    finally:
        _current.reset(token)
