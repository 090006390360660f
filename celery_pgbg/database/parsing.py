"""Asks the server whether a text is SQL, without running it."""

from __future__ import annotations

import psycopg
from psycopg import errors, generators, pq

from celery_pgbg.database.sessions import Session, is_dead


def check_syntax(session: Session, text: str) -> None:
    """Raise the server's own error for a text that its grammar refuses; used for texts that our parser does not know.

    Raises:
        psycopg.errors.SyntaxError: as for the same text on any connection, with the position of the error.
        psycopg.OperationalError: the session died.
    """
    # Of two statements in one text the server checks only the grammar: no table is looked up or locked.
    if _is_of_grammar(_refusal(session, f"{text}\n;SELECT")):
        refusal = _refusal(session, text)
        if refusal is not None and _is_of_grammar(refusal):
            raise refusal


def _is_of_grammar(error: psycopg.Error | None) -> bool:
    """Only an error of the grammar has a position.

    The error about two statements has the same SQLSTATE but no position.
    """
    return error is not None and error.sqlstate == "42601" and error.diag.statement_position is not None


def _refusal(session: Session, text: str) -> psycopg.Error | None:
    """Let the server parse a text, in its own transaction or in a savepoint, which an error ends."""
    try:
        with session.transaction():
            session.pgconn.send_prepare(b"", text.encode(session.info.encoding))
            with session.lock:
                [result] = session.wait(generators.execute(session.pgconn))
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result, session.info.encoding)
    except psycopg.Error as exc:
        if exc.sqlstate is None or is_dead(session):
            raise
        return exc
    return None
