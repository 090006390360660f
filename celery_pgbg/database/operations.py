"""What operating needs to ask of a database, on a session of its own."""

from __future__ import annotations

import re
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from celery_pgbg.database import queries
from celery_pgbg.database.runner import Runner
from celery_pgbg.database.sessions import Session
from celery_pgbg.database.stopping import stop_attempt
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Interruption, Order, Watch
from celery_pgbg.outcomes import Detached, Returned
from celery_pgbg.settings import Settings

#: A string as ``format('%L')`` writes it, perhaps cut off by ``track_activity_query_size``.
_LITERAL = r" ?E?'(?:[^']|'')*'?"

#: The call that a background worker shows as its query, around the statement.
_CALL = re.compile(
    rf"SELECT celery_pgbg\.run_v1\({_LITERAL}, \d+, {_LITERAL}, -?\d+, -?\d+, {_LITERAL},"
    rf" (?P<preamble>NULL|{_LITERAL})(?:, (?P<last>{_LITERAL}))?"
)

_CANCELLED_BY_HAND = "cancelled by hand: pgbg cancel --force"

#: How long the doctor waits for ``SELECT 1``, in seconds.
_ROUND_TRIP_SECONDS = 15.0


@dataclass(frozen=True)
class Slots:
    """Background worker slots of a server."""

    used: int
    used_by_others: int
    server_worker_limit: int


def executions(session: Session, ended_seconds: float) -> list[dict[str, Any]]:
    """List what runs, and what ended within the last seconds; times in seconds.

    ``statement`` is what the server shows of it: its beginning, and nothing to a role that may not see it.
    """
    rows = _rows(session, "operate_ps", {"ended_ms": round(ended_seconds * 1000)})
    return [{**row, "statement": _statement_in(row["statement"] or "")} for row in rows]


def _statement_in(query: str) -> str:
    """Take the task's own statement out of the call that runs it."""
    call = _CALL.match(query)
    if call is None:
        return query
    literals = [part for part in call.group("preamble", "last") if part not in (None, "NULL")]
    return " ".join(part.strip().removeprefix("E")[1:].removesuffix("'").replace("''", "'") for part in literals)


def task_statistics(session: Session, seconds: float) -> list[dict[str, Any]]:
    """Count runs and failures by task, with p50 and p95 of their seconds, over the last seconds."""
    return _rows(session, "operate_stats", {"ended_ms": round(seconds * 1000)})


def slots(session: Session) -> Slots:
    """Count the background workers of pg_background that run now, those of others, and all slots."""
    return Slots(**_rows(session, "operate_slots", {})[0])


def cancel_by_hand(session: Session, task_id: str) -> list[bool]:
    """Stop the background worker of a task, if it is really that one, and let the attempt fail for good.

    Its effects are rolled back; ``QueryCanceled`` becomes its outcome, so that no redelivery runs it again.
    An attempt that finishes at the same moment has finished. A statement that stands alone is only stopped.

    Returns:
        For each that was stopped, whether it was atomic.
    """
    live = _rows(session, "operate_live", {"task_id": task_id})
    return [row["atomic"] for row in live if _stop(session, task_id, **row)]


def _stop(session: Session, task_id: str, attempt: int, atomic: bool, application_name: str) -> bool:
    if atomic:
        return stop_attempt(session, Attempt(task_id, attempt), application_name, _CANCELLED_BY_HAND) != "finished"
    return bool(_rows(session, "terminate_worker", {"application_name": application_name}))


def purge(session: Session, older_than: float) -> int:
    """Delete outcomes and records that are older than so many seconds.

    Returns:
        How many executions were deleted.
    """
    return session.execute(queries.query("delete_expired"), {"age_ms": round(older_than * 1000)}).rowcount


def round_trip(dsn: str, settings: Settings) -> float:
    """Run ``SELECT 1`` as a task would.

    Returns:
        Seconds from launch to outcome.

    Raises:
        RuntimeError: it did not end in time, or otherwise than with its value.
    """
    runner = Runner(dsn, settings, "doctor")
    attempt = Attempt(f"doctor-{uuid.uuid4()}")
    order = Order(attempt, "pgbg.doctor", "doctor", "SELECT 1", {}, "value", notify=settings.notify)
    watch = Watch(attempt)
    alarm = threading.Timer(_ROUND_TRIP_SECONDS, watch.interrupt, (Interruption.DETACH,))
    alarm.start()
    try:
        begin = time.monotonic()
        ending = runner.run(order, watch)
        seconds = time.monotonic() - begin
    finally:
        alarm.cancel()
        runner.close()
    if ending == Detached():
        raise RuntimeError(f"SELECT 1 in a background worker took more than {_ROUND_TRIP_SECONDS:g} s: no free slot?")
    if ending != Returned(1):
        raise RuntimeError(f"SELECT 1 in a background worker ended with {ending}")
    return seconds


def _rows(session: Session, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(queries.query(name), parameters).fetchall()
