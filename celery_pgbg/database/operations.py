"""What operating needs to ask of a database, on a session of its own."""

from __future__ import annotations

import time
import uuid
from typing import Any

from psycopg.rows import dict_row

from celery_pgbg.database import queries
from celery_pgbg.database.runner import Runner
from celery_pgbg.database.sessions import Session
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order, Watch
from celery_pgbg.outcomes import Returned
from celery_pgbg.settings import Settings


def executions(session: Session, ended_seconds: float) -> list[dict[str, Any]]:
    """List what runs, and what ended within the last seconds; times in seconds."""
    return _rows(session, "operate_ps", {"ended_ms": round(ended_seconds * 1000)})


def task_statistics(session: Session, seconds: float) -> list[dict[str, Any]]:
    """Count runs and failures by task, with p50 and p95 of their seconds, over the last seconds."""
    return _rows(session, "operate_stats", {"ended_ms": round(seconds * 1000)})


def slots(session: Session) -> tuple[int, int]:
    """Count the background workers of pg_background that run now, and all slots of the server."""
    row = _rows(session, "operate_slots", {})[0]
    return row["used"], row["server_worker_limit"]


def terminate(session: Session, task_id: str) -> int:
    """Stop the background worker of a task, if it is really that one.

    Returns:
        How many were signalled: 0 or 1 for each attempt on record.
    """
    attempts = {row["attempt"] for row in executions(session, 0) if row["task_id"] == task_id}
    signalled = 0
    for attempt in attempts:
        row = session.execute(queries.query("terminate_execution"), {"task_id": task_id, "attempt": attempt}).fetchone()
        signalled += bool(row and row[0])
    return signalled


def purge(session: Session, older_than: float) -> int:
    """Delete outcomes and records that are older than so many seconds.

    Returns:
        How many executions were deleted.
    """
    return session.execute(queries.query("delete_expired"), {"age_ms": round(older_than * 1000)}).rowcount


def through_pooler(session: Session) -> bool:
    """Tell whether a pooler stands between us and the server."""
    row = session.execute(queries.query("operate_session")).fetchone()
    return row is not None and row[0] != session.info.backend_pid


def round_trip(dsn: str, settings: Settings) -> float:
    """Run ``SELECT 1`` as a task would.

    Returns:
        Seconds from launch to outcome.

    Raises:
        RuntimeError: it ended otherwise than with its value.
    """
    runner = Runner(dsn, settings, "doctor")
    attempt = Attempt(f"doctor-{uuid.uuid4()}")
    order = Order(attempt, "pgbg.doctor", "doctor", "SELECT 1", {}, "value", notify=settings.notify)

    try:
        begin = time.monotonic()
        ending = runner.run(order, Watch(attempt))
        seconds = time.monotonic() - begin
    finally:
        runner.close()
    if ending != Returned(1):
        raise RuntimeError(f"SELECT 1 in a background worker ended with {ending}")
    return seconds


def _rows(session: Session, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(queries.query(name), parameters).fetchall()
