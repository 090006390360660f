"""Finds out whether a pooler such as PgBouncer stands between us and the server, and its mode."""

from __future__ import annotations

from collections.abc import Callable

from celery_pgbg.database import queries
from celery_pgbg.database.sessions import Session

NEEDS_SESSIONS = (
    "the connection goes through a pooler in transaction mode (PgBouncer: pool_mode = transaction), which does not "
    "keep the session that launches SQL tasks and holds their handles; point pgbg_dsn to the server itself, or to a "
    "pool in session mode"
)

#: How often two connections are compared, because other clients of the pooler may interfere.
_ROUNDS = 5


def through_pooler(session: Session) -> bool:
    """Check for a pooler: the connection's PID differs from the server's PID."""
    return _server_pid(session) != session.info.backend_pid


def shares_sessions(session: Session, open_session: Callable[[], Session]) -> bool:
    """Check whether a pooler shares sessions between transactions, so that no state in a session is ours for long.

    If there is a pooler, a second connection is opened and both are compared. One server session for both connections,
    or two sessions for one connection, prove it.

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
    # psycopg would prepare this repeated query, in a session that may belong to another client next time.
    row = session.execute(queries.query("server_pid"), prepare=False).fetchone()
    assert row is not None
    return int(row[0])
