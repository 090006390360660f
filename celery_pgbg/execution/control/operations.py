"""Queries of the commands, each on a session of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from celery_pgbg.database.roles import acting_as
from celery_pgbg.database.sessions import Session
from celery_pgbg.execution import queries
from celery_pgbg.execution.control.shown_calls import statement_in
from celery_pgbg.execution.control.stopping import stop_attempt
from celery_pgbg.execution.records.attempts import terminate
from celery_pgbg.handles import Attempt


@dataclass(frozen=True)
class Slots:
    """Background worker slots of a server."""

    used: int
    used_by_others: int
    server_worker_limit: int


#: How many ended executions are listed by default.
LIMIT = 50

#: More rows than any table has.
_ALL = 2**62


def executions(
    session: Session, ended_seconds: float, ended_limit: int | None = LIMIT, before: datetime | None = None
) -> list[dict[str, Any]]:
    """List running executions, the oldest first, then those that ended within the last seconds, the latest first.

    ``statement`` is the server's view of it: its beginning, or nothing for a role without the right to see it.
    ``seconds`` is None for executions that are gone, because the time of their end is unknown.

    Args:
        session: any.
        ended_seconds: how long ago an execution may have ended.
        ended_limit: how many ended executions; None for all. One more is returned if there are more.
        before: only executions that ended before that moment, and running ones.
    """
    limit = _ALL if ended_limit is None else ended_limit + 1
    parameters = {"ended_ms": round(ended_seconds * 1000), "ended_limit": limit, "before": before}
    rows = _rows(session, "operate_ps", parameters)
    running = sum(row["state"] in ("running", "starting", "waiting", "unknown") for row in rows)
    return [_with_statement(row) for row in rows[: running + limit]]


def failures(session: Session, seconds: float, limit: int | None, task_name: str | None = None) -> list[dict[str, Any]]:
    """List tasks whose latest attempt failed within the last seconds, the latest failure first; None for all."""
    parameters = {
        "ended_ms": round(seconds * 1000),
        "limit": _ALL if limit is None else limit,
        "task_name": task_name,
    }
    return _rows(session, "operate_failed", parameters)


def attempts_of(session: Session, task_id: str) -> list[dict[str, Any]]:
    """Show everything about each attempt of a task."""
    rows = _rows(session, "operate_show", {"task_id": task_id})
    return [_with_statement(row) for row in rows]


def tasks_that_begin(session: Session, beginning: str) -> list[str]:
    """Find the task with this id, else up to three tasks whose ids begin with it."""
    return [row["task_id"] for row in _rows(session, "operate_find", {"beginning": beginning})]


def _with_statement(row: dict[str, Any]) -> dict[str, Any]:
    """Name the task's own statement, from an order on record or from what its background worker shows."""
    query = row.pop("query")
    return {**row, "statement": row["statement"] or statement_in(query or "")}


def task_statistics(session: Session, seconds: float) -> list[dict[str, Any]]:
    """Count runs and failures by task, with p50 and p95 of their seconds, over the last seconds."""
    return _rows(session, "operate_stats", {"ended_ms": round(seconds * 1000)})


def slots(session: Session) -> Slots:
    """Count the running background workers of pg_background, other background workers, and all slots."""
    return Slots(**_rows(session, "operate_slots", {})[0])


def cancel_by_hand(session: Session, task_id: str) -> list[bool]:
    """Stop the background worker of a task, after a check of its identity, and let the attempt fail for good.

    Its effects are rolled back; ``QueryCanceled`` becomes its outcome, so that no redelivery runs it again.
    An attempt that finishes at the same moment has finished. A statement with ``atomic=False`` is only stopped.

    Returns:
        For each stopped statement, whether it was atomic.
    """
    live = _rows(session, "operate_live", {"task_id": task_id})
    return [row["atomic"] for row in live if _stop(session, task_id, **row)]


def is_batched(session: Session, task_id: str) -> bool:
    """Whether a task is a batched one that has begun."""
    return bool(_rows(session, "operate_is_walk", {"task_id": task_id})[0]["is_walk"])


def _stop(session: Session, task_id: str, attempt: int, atomic: bool, owner_name: str | None) -> bool:
    # Only with the rights of the owner, because its records may name processes of other roles.
    with acting_as(session, owner_name):
        if atomic:
            return stop_attempt(session, Attempt(task_id, attempt), "by hand") != "finished"
        return terminate(session, Attempt(task_id, attempt))


def _rows(session: Session, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(queries.query(name), parameters).fetchall()
