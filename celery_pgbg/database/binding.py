"""Turns a task's query and arguments into the text that PostgreSQL runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import psycopg

from celery_pgbg.database.json_arguments import mogrify, with_json
from celery_pgbg.database.routines import RoutineCall
from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import BindingError

#: The beginning of psycopg's message about placeholders without an argument; their names follow.
_MISSING = "query parameter missing: "

#: Placeholders after IN.
_AFTER_IN = re.compile(r"\bIN\s+%\((\w+)\)s", re.IGNORECASE)

#: A placeholder that somebody has put into quotation marks.
_QUOTED = re.compile(r"'(%\(\w+\)s)'")

#: In a script of pg_dump, the line after the rows of COPY.
_END_OF_ROWS = re.compile(r"^\\\.$", re.MULTILINE)

_PSQLS_COMMAND = re.compile(r"^\s*(\\[a-z!?][\w+]*)", re.MULTILINE)

_ROWS_AS_ARGUMENT = "give them as an argument and read them with jsonb_to_recordset() or unnest()"

#: psycopg's errors for a query with wrong arguments; ``UnicodeError`` is for half a surrogate pair.
_REFUSALS = (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError, TypeError, UnicodeError)


def bind(session: Session, query: Any, params: Any, atomic: bool = True) -> str:
    """Merge arguments into a query as literals, quoted by psycopg for this session.

    Dicts and lists of dicts are jsonb, see ``with_json``. No round trip, except for a ``RoutineCall``.

    Raises:
        BindingError: a placeholder without an argument, a lone percent sign, a value psycopg cannot adapt,
            a character that PostgreSQL does not know.
    """
    if isinstance(query, RoutineCall):
        query, params = query.compose(session, atomic, partial(bind, session))
    try:
        text = mogrify(session, query, with_json(session, query, params))
    except _REFUSALS as exc:
        raise BindingError(_explain(session, exc, params)) from exc
    if "\0" in text:
        raise BindingError("the statement has a NUL character, which PostgreSQL does not accept")
    return text


def likely_cause(query: Any, params: Any) -> str | None:
    """Explain the most frequent mistakes with placeholders in a statement that is not SQL."""
    if not isinstance(query, str) or not isinstance(params, Mapping):
        return None
    for name in _AFTER_IN.findall(query):
        if isinstance(params.get(name), (list, tuple)):
            return f"IN %({name})s takes no list: write = ANY(%({name})s)"
    for name in params:
        if re.search(rf"(?<![:\w]):{re.escape(name)}\b", query):
            return f"a placeholder is written %({name})s, not :{name}"
    if quoted := _QUOTED.search(query):
        return f"a placeholder stands without quotation marks: {quoted[1]}, not {quoted[0]}"
    if _END_OF_ROWS.search(query):
        return f"the rows after COPY FROM STDIN are not SQL: {_ROWS_AS_ARGUMENT}"
    if command := _PSQLS_COMMAND.search(query):
        return f"{command[1]} is a command of psql, not SQL"
    return None


def _explain(session: Session, error: Exception, params: Any) -> str:
    """Name the placeholder or the argument that does not fit."""
    message = str(error)
    # psycopg's placeholder in " using placeholder '%t'" is not the one in the statement.
    said = message.partition(" using placeholder ")[0]
    missing = message.removeprefix(_MISSING)
    if missing != message and isinstance(params, Mapping):
        placeholders = ", ".join(f"%({name})s" for name in missing.split(", "))
        return f"placeholder {placeholders} has no argument; the arguments are: {', '.join(params) or 'none'}"
    named = params.items() if isinstance(params, Mapping) else enumerate(params or (), start=1)
    for name, value in named:
        if _refusal(session, value) == message:
            return f"argument {name} cannot be bound: {said}"
    cure = "; a percent sign is written %%" if "%" in said and "%%" not in said else ""
    return f"the statement cannot be bound to its arguments: {said}{cure}"


def _refusal(session: Session, value: Any) -> str | None:
    """Psycopg's error for one value alone, or None if it accepts the value."""
    try:
        mogrify(session, "%s", with_json(session, "%s", (value,)))
    except _REFUSALS as exc:
        return str(exc)
    return None
