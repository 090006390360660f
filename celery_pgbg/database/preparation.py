"""Turns an order into the texts that a background worker runs, and checks them before the launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg

from celery_pgbg.database.binding import bind, likely_cause
from celery_pgbg.database.inspection import Inspection, inspect_statements
from celery_pgbg.database.libpg_query import LibraryMissing, Span
from celery_pgbg.database.parsing import check_syntax
from celery_pgbg.database.plain_queries import is_plain_query
from celery_pgbg.database.plain_strings import as_escape_strings
from celery_pgbg.database.select_into import as_create_table
from celery_pgbg.database.sessions import Session
from celery_pgbg.database.splitting import find_statements, split, split_at
from celery_pgbg.database.values import to_exception
from celery_pgbg.errors import BindingError, TaskDefinitionError
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import ErrorReport

#: The server starts this clock when a client's statement arrives, but a task's statements come from our function.
_TIMEOUT = "statement_timeout"

#: Properties that a transaction must get before its first statement, and the settings that give them.
_OF_TRANSACTION = {
    "transaction_isolation": "default_transaction_isolation",
    "transaction_deferrable": "default_transaction_deferrable",
}

#: As PostgreSQL's own error has it.
_AS_POSTGRESQL_SAYS = {
    "transaction_isolation": "SET TRANSACTION ISOLATION LEVEL",
    "transaction_deferrable": "SET TRANSACTION [NOT] DEFERRABLE",
}

_SEVERAL = ErrorReport(
    "25001",
    "several statements cannot run outside a transaction block",
    {"message_hint": "A task with atomic=False takes a single statement. Put the values of SET into its settings."},
)


@dataclass(frozen=True)
class Prepared:
    """The texts and settings of a launch.

    Attributes:
        preamble: all statements before the last, or None.
        statement: the last one; its result is the task's.
        settings: the order's settings, and settings from its statements that must be set before the background worker
            begins.
        is_plain_query: whether the last statement only reads, and may stand in the FROM of another statement.
    """

    preamble: str | None
    statement: str
    settings: Mapping[str, str]
    is_plain_query: bool = False


def prepare(session: Session, order: Order) -> Prepared:
    """Bind, split and check the statements of an order; a round trip is needed only for texts unknown to the parser.

    Raises:
        BindingError: the query and its arguments do not fit.
        TaskDefinitionError: there is no statement, or one sets a parameter that cannot be set there.
        psycopg.Error: the server's error, real or predicted, for a statement that cannot run in a task.
    """
    text = bind(session, order.query, order.params, order.atomic)
    data = text.encode()
    try:
        statements, understood = find_statements(data)
    except LibraryMissing:
        return Prepared(*split(text), order.settings)
    if not statements:
        raise TaskDefinitionError(f"{order.task_name}: the statement is empty")
    if not understood:
        _check_syntax(session, order, text)
    found = inspect_statements(data, statements, order.atomic)
    if found.refusal:
        raise to_exception(found.refusal)
    if not order.atomic:
        if len(statements) > 1:
            raise to_exception(_SEVERAL)
        return Prepared(None, text, order.settings)
    settings, done = _take_over(order, found, len(statements))
    data, statements = _rewritten(data, statements, done)
    # A single statement keeps the comments before and after it.
    preamble, statement = split_at(data, statements) if len(statements) > 1 or done else (None, data.decode())
    if preamble:
        statement = as_escape_strings(statement)
    bare = statement if preamble or not statements else data[: statements[-1].end].decode()
    if is_plain_query(bare):
        return Prepared(preamble, bare, {**order.settings, **settings}, is_plain_query=True)
    return Prepared(preamble, statement, {**order.settings, **settings})


def _check_syntax(session: Session, order: Order, text: str) -> None:
    try:
        check_syntax(session, text)
    except psycopg.errors.SyntaxError as exc:
        if cause := likely_cause(order.query, order.params):
            raise BindingError(f"{cause} ({exc.diag.message_primary})") from exc
        raise


def _rewritten(data: bytes, statements: list[Span], done: set[int]) -> tuple[bytes, list[Span]]:
    """Leave out statements that became settings, and rewrite those that PL/pgSQL does not execute."""
    changed = dict.fromkeys(done, b"")
    for number, (start, end) in enumerate(statements):
        if number not in done and (text := as_create_table(data[start:end])):
            changed[number] = text
    if not changed:
        return data, statements
    parts: list[bytes] = []
    spans = []
    length = copied = 0
    for number, (start, end) in enumerate(statements):
        text = changed.get(number, data[start:end])
        parts += data[copied:start], text
        length += start - copied + len(text)
        copied = end
        if number not in done:
            spans.append(Span(length - len(text), length))
    return b"".join([*parts, data[copied:]]), spans


def _take_over(order: Order, found: Inspection, count: int) -> tuple[dict[str, str], set[int]]:
    """Find the settings that would come too late in a running background worker.

    Returns:
        Those settings, and the numbers of the statements that have nothing left to do.
    """
    others = [number for number in range(count) if number not in found.setters]
    settings: dict[str, str] = {}
    done: set[int] = set()
    for name, value, number in found.settings:
        following = [other for other in others if other > number]
        if value is None or not following:
            continue
        is_leading = following == others
        if name == _TIMEOUT:
            if not is_leading or len(others) > 1:
                raise TaskDefinitionError(
                    f"{order.task_name}: SET {_TIMEOUT} has no effect between the statements of a task; give the task "
                    f'settings={{"{_TIMEOUT}": "{value}"}}, which limits all of them together'
                )
            settings[name] = value
        elif name in _OF_TRANSACTION:
            if not is_leading:
                raise to_exception(_comes_too_late(name, value))
            settings[_OF_TRANSACTION[name]] = value
            done.add(number)
    return settings, done


def _comes_too_late(name: str, value: str) -> ErrorReport:
    hint = f'Put it first, or give the task settings={{"{_OF_TRANSACTION[name]}": "{value}"}}.'
    return ErrorReport("25001", f"{_AS_POSTGRESQL_SAYS[name]} must be called before any query", {"message_hint": hint})
