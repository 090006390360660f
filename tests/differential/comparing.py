"""One statement as a task and by psycopg on a plain connection: values and errors side by side."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from celery_pgbg.database.values import to_exception
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Raised, Returned
from tests.fix_runner import order, run

#: Where a value was put that is equal to nothing, not even to itself.
_NAN = "NaN"


@dataclass(frozen=True)
class Seen:
    """What a statement came to: its value, or its error's class, SQLSTATE and message."""

    value: Any = None
    error: tuple[type[BaseException], str | None, str | None] | None = None


#: The statement has run, but Python has no such value, or psycopg does not read it.
CANNOT_BE_LOADED = Seen(error=(psycopg.DataError, None, None))


def by_psycopg(dsn: str, query: str, params: Any = None) -> Seen:
    """Run a statement in a new session, in a transaction of its own that is rolled back."""
    with psycopg.connect(dsn, row_factory=dict_row, cursor_factory=psycopg.ClientCursor) as session:
        try:
            cursor = session.execute(query.encode(), params)
            while cursor.nextset():
                pass
            value = cursor.fetchall() if cursor.description is not None else max(cursor.rowcount, 0)
            session.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as exc:
            if exc.sqlstate is None:
                return CANNOT_BE_LOADED
            return Seen(error=(type(exc), exc.sqlstate, exc.diag.message_primary))
        except (OverflowError, ValueError, NotImplementedError, RecursionError):
            return CANNOT_BE_LOADED
        finally:
            session.rollback()
    return Seen(_comparable(value))


def as_task(runner: Runner, query: str, params: Any = None, **options: Any) -> Seen:
    """Run a statement as an attempt of its own, and take back what it did."""
    try:
        ending = run(runner, order(query, task_id=f"differential {uuid.uuid4()}", params=params, **options))
    except psycopg.Error as exc:
        # Found before anything was launched.
        return Seen(error=(type(exc), exc.sqlstate, exc.diag.message_primary))
    if isinstance(ending, Returned):
        return Seen(_comparable(ending.value))
    assert isinstance(ending, Raised), ending
    error = to_exception(ending.report)
    if "a value of its result cannot be loaded" in str(error):
        return CANNOT_BE_LOADED
    return Seen(error=(type(error), error.sqlstate, error.diag.message_primary))


def _comparable(value: Any) -> Any:
    """A value with its types, which ``==`` does not tell."""
    if isinstance(value, dict):
        return [(key, _comparable(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [_comparable(item) for item in value]
    if value != value:
        return type(value).__name__, _NAN
    return type(value).__name__, value
