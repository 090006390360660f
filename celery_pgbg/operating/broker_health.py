"""Checks of ``pgbg doctor`` for the broker ``pgbg://``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import errors

from celery_pgbg.broker import browsing
from celery_pgbg.broker.transport import DRIVER_TYPE
from celery_pgbg.broker.urls import address_of
from celery_pgbg.database.sessions import Session, connect
from celery_pgbg.operating.findings import Finding
from celery_pgbg.operating.times import for_people

#: Age in seconds from which a message in a queue without consumers is reported.
_OLD = 60.0

#: More dead rows than this, and more than there are messages, mean that something prevents vacuuming.
_MANY_DEAD = 100_000


def check_our_broker(connection: Any) -> Iterator[Finding]:
    """Check the database behind kombu's connection; no findings for another broker."""
    if connection.transport.driver_type != DRIVER_TYPE:
        return
    address = address_of(connection)
    with connect(address.dsn, application_name="pgbg doctor", connect_timeout=address.connect_timeout) as session:
        try:
            health, queues = browsing.health(session), browsing.queues(session)
        except errors.InsufficientPrivilege:
            yield Finding("warning", "broker rights", _ONLY_SENDS.format(session.info.user))
            return
        user = session.info.user
    if health["may_consume"]:
        yield Finding("ok", "broker rights", f"role {user} may send and take messages")
    else:
        yield Finding("warning", "broker rights", _ONLY_SENDS.format(user))
    yield from _backlogs(queues)
    yield _lost(health)
    yield _vacuum(health, sum(row["waiting"] + row["taken"] for row in queues))


def check_leftovers(session: Session) -> Iterator[Finding]:
    """Check what waits in the database of an app with another broker: in the outbox, and in queues of before."""
    try:
        queues = browsing.queues(session)
    except errors.InsufficientPrivilege:
        return
    if any(row["waiting"] for row in queues):
        yield from _backlogs(queues)


_ONLY_SENDS = (
    "role {} may only send messages, if that: a Celery worker, and this check, need a role from "
    "`celery -A yourproject pgbg install --grant-to`"
)


def _backlogs(queues: list[dict[str, Any]]) -> Iterator[Finding]:
    """Report waiting messages, and queues without consumers."""
    left = [row for row in queues if row["waiting"] and not row["consumers"] and row["oldest_seconds"] > _OLD]
    for row in left:
        age = for_people(row["oldest_seconds"])
        said = f"{row['waiting']} messages wait in queue {row['name']!r}, the oldest for {age}"
        if row["name"] == browsing.DEAD_LETTERS:
            cure = "delivered too often: `pgbg messages --dead` shows them, with --send-back it sends them back"
        else:
            cure = "the queue has no consumer: start a Celery worker for it (for the outbox: a relay), or purge it"
        yield Finding("warning", "backlog", f"{said}; {cure}")
    waiting = [row for row in queues if row["waiting"]]
    if not left:
        oldest = max((row["oldest_seconds"] for row in waiting), default=None)
        said = "" if oldest is None else f", the oldest for {for_people(oldest)}"
        yield Finding("ok", "backlog", f"{sum(row['waiting'] for row in waiting)} messages wait{said}")


def _lost(health: dict[str, Any]) -> Finding:
    # Without messages they are what ended programs have left behind, such as `celery inspect` or this check.
    if not health["lost_messages"]:
        return Finding("ok", "lost consumers", "none with messages")
    return Finding(
        "warning",
        "lost consumers",
        f"{health['lost_consumers']} ended without giving back {health['lost_messages']} messages; a Celery worker of "
        "this database would give them to others within seconds, so none seems to run: start one",
    )


def _vacuum(health: dict[str, Any], messages: int) -> Finding:
    said = f"{health['dead_rows']} dead rows beside {messages} messages, {health['bytes'] / 1e6:.0f} MB"
    if not health["is_vacuumed"]:
        return Finding(
            "warning",
            "vacuum",
            f"{said}; autovacuum is off for celery_pgbg.message, so the table only grows: turn it on",
        )
    if health["dead_rows"] > max(_MANY_DEAD, 10 * messages):
        cure = "a long open transaction prevents their removal: find and end it, because the table grows"
        return Finding("warning", "vacuum", f"{said}; {cure}")
    return Finding("ok", "vacuum", said)
