"""Lets a forked process close its copies of the parent's sessions.

These copies of the sockets would keep the sessions open after the parent's end, and with them the locks that show that
the parent lives.
"""

from __future__ import annotations

import contextlib
import os
from weakref import WeakSet

import psycopg
from psycopg.rows import TupleRow

_sessions: WeakSet[psycopg.Connection[TupleRow]] = WeakSet()


def let_go_after_fork(session: psycopg.Connection[TupleRow]) -> None:
    """Have forked processes close their copies of a session's socket."""
    _sessions.add(session)


def _let_go() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for session in list(_sessions):
        # libpq still has the descriptor, so a harmless file takes its place. Closed sessions have none.
        with contextlib.suppress(psycopg.Error):
            os.dup2(null, session.fileno(), inheritable=False)
    os.close(null)
    _sessions.clear()


os.register_at_fork(after_in_child=_let_go)
