"""The role that a session acts as."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from celery_pgbg.database.sessions import Session


def take_role(session: Session, role: str) -> None:
    """Act as another role, with its rights only."""
    session.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


def leave_role(session: Session) -> None:
    """Act as the role again that the session begins with."""
    session.execute("RESET ROLE")


@contextmanager
def acting_as(session: Session, role: str | None) -> Iterator[None]:
    """Act as another role in the body; None: as now."""
    if role is None:
        yield
        return
    take_role(session, role)
    try:
        yield
    finally:
        leave_role(session)
