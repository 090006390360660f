"""Checks of ``pgbg doctor`` for the broker ``pgbg://``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import errors

from celery_pgbg.broker import browsing
from celery_pgbg.broker.transport import DRIVER_TYPE
from celery_pgbg.broker.urls import address_of
from celery_pgbg.database.sessions import connect
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
        yield Finding("ok", "broker rights", f"{user} may send and take")
    else:
        yield Finding("warning", "broker rights", _ONLY_SENDS.format(user))
    yield from _backlogs(queues)
    yield _lost(health)
    yield _vacuum(health, sum(row["waiting"] + row["taken"] for row in queues))


_ONLY_SENDS = (
    "{} may send at most: a Celery worker needs a role of `celery -A yourproject pgbg install --grant-to`, and so does "
    "this check"
)


def _backlogs(queues: list[dict[str, Any]]) -> Iterator[Finding]:
    """Report waiting messages, and queues without consumers."""
    left = [row for row in queues if row["waiting"] and not row["consumers"] and row["oldest_seconds"] > _OLD]
    for row in left:
        age = for_people(row["oldest_seconds"])
        said = f"{row['waiting']} messages wait in queue {row['name']!r}, the oldest for {age}"
        if row["name"] == browsing.DEAD_LETTERS:
            cure = "they were delivered too often: `pgbg messages --dead` shows them, and sends them back"
        else:
            cure = "nothing takes from it: start a Celery worker for it, or a relay for the outbox, or purge it"
        yield Finding("warning", "backlog", f"{said}; {cure}")
    waiting = [row for row in queues if row["waiting"]]
    if not left:
        oldest = max((row["oldest_seconds"] for row in waiting), default=None)
        said = "" if oldest is None else f", the oldest for {for_people(oldest)}"
        yield Finding("ok", "backlog", f"{sum(row['waiting'] for row in waiting)} messages wait{said}")


def _lost(health: dict[str, Any]) -> Finding:
    if not health["lost_consumers"]:
        return Finding("ok", "lost consumers", "none")
    return Finding(
        "warning",
        "lost consumers",
        f"{health['lost_consumers']} have ended without a word and still hold {health['lost_messages']} messages; any "
        "Celery worker that takes from this database gives them to others within seconds, so none seems to run",
    )


def _vacuum(health: dict[str, Any], messages: int) -> Finding:
    said = f"{health['dead_rows']} dead rows beside {messages} messages, {health['bytes'] / 1e6:.0f} MB"
    if not health["is_vacuumed"]:
        return Finding("warning", "vacuum", f"{said}; autovacuum is off for celery_pgbg.message, which only grows then")
    if health["dead_rows"] > max(_MANY_DEAD, 10 * messages):
        cure = "a transaction that is open for long keeps them; takes do not read them, but the table grows"
        return Finding("warning", "vacuum", f"{said}; {cure}")
    return Finding("ok", "vacuum", said)
