"""Looking at the broker's queues, for people who operate it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from celery_pgbg.broker.queries import query
from celery_pgbg.broker.station import stations
from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import PgbgError

#: Where messages go that were delivered too often.
DEAD_LETTERS = "celery_pgbg.dead_letters"

#: An event loop asks, so no more are counted.
_COUNTED = 10_000


def queues(session: Session) -> list[dict[str, Any]]:
    """Count what each queue has. Columns: see ``queues.sql``."""
    with session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("queues")).fetchall()


def health(session: Session) -> dict[str, Any]:
    """Read what may be wrong with the broker of this database. Columns: see ``health.sql``.

    Raises:
        psycopg.errors.InsufficientPrivilege: this role may send at most.
    """
    with session.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query("health")).fetchone()
        assert row is not None
        return row


def describe_queues() -> list[dict[str, Any]]:
    """What ``inspect stats`` shows: what waits in the queues that this process takes from, counted up to a limit."""
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


def messages(session: Session, queue: str, limit: int | None) -> list[dict[str, Any]]:
    """List the messages of a queue, the oldest first. Columns: see ``messages.sql``."""
    with session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("messages"), {"queue": queue, "limit": limit}).fetchall()


def purge(session: Session, queue: str) -> int:
    """Delete the messages of a queue that wait; returns how many."""
    row = session.execute(query("purge_queue"), {"name": queue}).fetchone()
    return int(row[0]) if row else 0


def send_back(session: Session, message_id: int | None) -> int:
    """Send one dead letter, or all, back to where they came from; returns how many."""
    row = session.execute(query("send_back"), {"id": message_id}).fetchone()
    return int(row[0]) if row else 0
