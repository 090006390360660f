"""Shows the broker's queues to operators."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from celery_pgbg.broker.queries import query
from celery_pgbg.broker.station import stations
from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import PgbgError

#: The queue for messages that were delivered too often.
DEAD_LETTERS = "celery_pgbg.dead_letters"

#: The event loop asks for this number, so the count is limited.
_COUNTED = 10_000


def queues(session: Session) -> list[dict[str, Any]]:
    """Count the messages of each queue. Columns: see ``queues.sql``."""
    with session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("queues")).fetchall()


def health(session: Session) -> dict[str, Any]:
    """Read the health of this database's broker. Columns: see ``health.sql``.

    Raises:
        psycopg.errors.InsufficientPrivilege: this role may at most send.
    """
    with session.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query("health")).fetchone()
        assert row is not None
        return row


def describe_queues() -> list[dict[str, Any]]:
    """Count, for ``inspect stats``, the waiting messages of the queues that this process consumes, up to a limit."""
    found: list[dict[str, Any]] = []
    for station in stations():
        queue_ids = station.queue_ids
        if not queue_ids:
            continue
        try:
            found += station.outlet.fetch_dicts("queues_briefly", {"queue_ids": queue_ids, "limit": _COUNTED})
        except (PgbgError, psycopg.Error) as exc:
            found.append({"error": str(exc).strip()})
    return found


def has_queue(session: Session, name: str) -> bool:
    """Whether a queue exists."""
    return session.execute(query("find_queue"), {"name": name}).fetchone() is not None


def messages(session: Session, queue: str, limit: int | None) -> list[dict[str, Any]]:
    """List the messages of a queue, the oldest first. Columns: see ``messages.sql``."""
    with session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("messages"), {"queue": queue, "limit": limit}).fetchall()


def purge(session: Session, queue: str) -> int:
    """Delete the waiting messages of a queue; returns their number."""
    row = session.execute(query("purge_queue"), {"name": queue}).fetchone()
    return int(row[0]) if row else 0


def send_back(session: Session, message_id: int | None) -> int:
    """Send one or all dead letters back to their queues; returns their number."""
    row = session.execute(query("send_back"), {"id": message_id}).fetchone()
    return int(row[0]) if row else 0
