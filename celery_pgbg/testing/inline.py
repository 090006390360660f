"""SQL tasks inside a test's own transaction: seen by the test, and rolled back with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from celery import _state

from celery_pgbg.errors import CannotRunInline
from celery_pgbg.execution.inline import InlineRunner
from celery_pgbg.runners import StatementRunner, stand_ins
from celery_pgbg.settings import DEFAULT_ALIAS
from celery_pgbg.testing.apps import configured
from celery_pgbg.testing.connections import psycopg_connection

if TYPE_CHECKING:
    from celery import Celery


@contextmanager
def inline(connection: Any, *, app: Celery | None = None, database: str | None = None) -> Iterator[None]:
    """Run SQL tasks in this connection's transaction, in all threads of this process.

    A task does the same as in a background worker: the same server function runs its statement, in a savepoint, with
    its ``role`` and ``settings``, and makes its value or its error. But nothing commits, and the isolation level is
    the transaction's. A database without the
    ``celery_pgbg`` schema gets it inside the transaction; the extension is not needed.

    A connection outside a transaction gets a transaction, which is rolled back at the end.

    Args:
        connection: psycopg's, SQLAlchemy's (or its Session), or Django's.
        app: made the current one, whose tasks run at once when they are sent (``task_always_eager``).
            None: sending them is as ever.
        database: the alias of ``pgbg_databases`` that the connection stands for. None: ``pgbg_dsn``.
            Nested, each adds one.

    Raises:
        TypeError: it is no such connection.
        CannotRunInline: raised by a task with ``atomic=False``, or with a database that no connection
            stands for.
    """
    runner = InlineRunner(psycopg_connection(connection))
    alias = database or DEFAULT_ALIAS
    outer = stand_ins[-1] if stand_ins else _refuse

    def find(asked: str | None) -> StatementRunner:
        return runner if (asked or DEFAULT_ALIAS) == alias else outer(asked)

    stand_ins.append(find)
    try:
        with _eager(app) if app else nullcontext():
            yield
    finally:
        stand_ins.remove(find)
        runner.close()


@contextmanager
def _eager(app: Celery) -> Iterator[None]:
    before = _state._tls.current_app
    app.set_current()
    try:
        with configured(app, task_always_eager=True):
            yield
    finally:
        _state._set_current_app(before)


def _refuse(asked: str | None) -> StatementRunner:
    raise CannotRunInline(
        f"tasks run inline, but no connection was given for the database {asked or DEFAULT_ALIAS!r}: "
        f"add `inline(connection, database={asked!r})`"
    )
