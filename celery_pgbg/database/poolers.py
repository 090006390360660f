"""Finding out what stands between us and the server: nothing, or a pooler such as PgBouncer, and in which mode."""

from __future__ import annotations

from collections.abc import Callable

from celery_pgbg.database import queries
from celery_pgbg.database.sessions import Session

NEEDS_SESSIONS = (
    "the connection goes through a pooler that lends sessions for one transaction (PgBouncer: pool_mode = "
    "transaction): pg_background's handles live in the session that launched, so SQL tasks cannot be watched there; "
    "let pgbg_dsn lead to the server itself, or to a pool in session mode"
)

#: How often two connections are compared; other clients of the pooler may come in between.
_ROUNDS = 5


def through_pooler(session: Session) -> bool:
    """Check whether a pooler stands in between: it has given the connection another PID than the server's."""
    return _server_pid(session) != session.info.backend_pid


def shares_sessions(session: Session, open_session: Callable[[], Session]) -> bool:
    """Check whether a pooler lends sessions for one transaction, so that nothing in a session is ours for long.

    Two connections are compared, of which the second is opened for that, if there is a pooler at all: one
    session of the server that serves both, or a connection that is served by two, proves it.

    Args:
        session: a connection, in autocommit mode.
        open_session: makes another one of the same kind.
    """
    if not through_pooler(session):
        return False
    with open_session() as other:
        for _ in range(_ROUNDS):
            ours, others = _server_pid(session), _server_pid(other)
            if ours == others or ours != _server_pid(session):
                return True
    return False


def _server_pid(session: Session) -> int:
    # Asked so often that psycopg would prepare it, in a session that may be another's the next time.
    row = session.execute(queries.query("server_pid"), prepare=False).fetchone()
    assert row is not None
    return int(row[0])
