"""From a task's query and arguments to the text that PostgreSQL runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import BindingError

#: How psycopg begins to say that placeholders have no argument; their names follow.
_MISSING = "query parameter missing: "

#: How psycopg refuses a query with its arguments; ``UnicodeError`` for half a surrogate pair.
_REFUSALS = (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError, TypeError, UnicodeError)


def bind(session: Session, query: Any, params: Any) -> str:
    """Merge arguments into a query as literals, quoted by psycopg for this session. No round trip.

    Raises:
        BindingError: a placeholder without an argument, a lone percent sign, a value psycopg cannot adapt,
            a character that PostgreSQL does not know.
    """
    try:
        text = psycopg.ClientCursor(session).mogrify(query, params)
    except _REFUSALS as exc:
        raise BindingError(_explain(session, exc, params)) from exc
    if "\0" in text:
        raise BindingError("the statement has a NUL character, which PostgreSQL does not know")
    return text


def _explain(session: Session, error: Exception, params: Any) -> str:
    """Say what does not fit: which placeholder, or which argument."""
    message = str(error)
    # psycopg's own placeholder in " using placeholder '%t'" is not the one that was written.
    said = message.partition(" using placeholder ")[0]
    missing = message.removeprefix(_MISSING)
    if missing != message and isinstance(params, Mapping):
        placeholders = ", ".join(f"%({name})s" for name in missing.split(", "))
        return f"placeholder {placeholders} has no argument; the arguments are: {', '.join(params) or 'none'}"
    named = params.items() if isinstance(params, Mapping) else enumerate(params or (), start=1)
    for name, value in named:
        if _refusal(session, value) == message:
            hint = "; psycopg.types.json.Jsonb(...) makes it JSON" if isinstance(value, dict) else ""
            return f"argument {name} cannot be bound: {said}{hint}"
    return f"the statement cannot be bound to its arguments: {said}"


def _refusal(session: Session, value: Any) -> str | None:
    """What psycopg says of one value alone, or None where it takes it."""
    try:
        psycopg.ClientCursor(session).mogrify("%s", (value,))
    except _REFUSALS as exc:
        return str(exc)
    return None


def split(text: str) -> tuple[str | None, str]:
    """Split off the last of several statements.

    Returns:
        All statements before the last, or None, and the last one. A text that the tokenizer does not
        understand counts as one statement.
    """
    body = text.rstrip().rstrip(";")
    if ";" not in body:
        return None, text
    ends = _statement_ends(body)
    for end in reversed(ends):
        if _has_statement(body[end + 1 :]):
            return (body[: end + 1], body[end + 1 :]) if _has_statement(body[:end]) else (None, body[end + 1 :])
        body = body[:end]
    return None, body


def _tokens(text: str) -> list[Any]:
    # Imported late: it costs 15 MB and a tenth of a second, and most tasks are one statement.
    from sqlglot.dialects.postgres import Postgres
    from sqlglot.errors import TokenError

    try:
        return list(Postgres().tokenize(text))
    except TokenError:
        return []


def _has_statement(text: str) -> bool:
    return any(token.text != ";" for token in _tokens(text)) if text.strip() else False


def _statement_ends(text: str) -> list[int]:
    """Find the semicolons that end a statement: outside parentheses and BEGIN ATOMIC bodies."""
    ends = []
    parentheses = bodies = 0
    previous = ""
    for token in _tokens(text):
        # A quoted name or string may read like a keyword; its own quotes tell it apart.
        word = text[token.start : token.end + 1].upper()
        if word == "(":
            parentheses += 1
        elif word == ")":
            parentheses -= 1
        elif (word == "ATOMIC" and previous == "BEGIN") or (word == "CASE" and bodies):
            bodies += 1
        elif word == "END" and bodies:
            bodies -= 1
        elif word == ";" and not parentheses and not bodies:
            ends.append(token.start)
        previous = word
    return ends
