"""Pausing the walks of batched tasks, and letting them go on."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row

from celery_pgbg.database.sessions import Session
from celery_pgbg.execution import queries
from celery_pgbg.execution.records.attempts import attempts_as_arrays
from celery_pgbg.handles import Attempt


@dataclass(frozen=True)
class WalkState:
    """What is on record of a walk.

    Attributes:
        walk_id: what a message names it by.
        task_name: Celery's name of its task.
        task_id: of the task that has it now.
        attempt: which of that task's.
        is_done: whether there is nothing left to walk.
        message: the arguments, as kombu encoded them.
    """

    walk_id: str
    task_name: str
    task_id: str
    attempt: int
    is_done: bool
    message: dict[str, str] | None


def pause(session: Session, task_id: str) -> bool:
    """Let the walk of a task wait before its next batch; waits for the one in progress. False: there is none."""
    return session.execute(queries.query("walk_pause"), {"task_id": task_id}).fetchone() is not None


def unpause(session: Session, task_id: str) -> WalkState | None:
    """Let the walk of a task wait no longer, and say what it is; None where there is none."""
    with session.cursor(row_factory=class_row(WalkState)) as cursor:
        return cursor.execute(queries.query("walk_resume"), {"task_id": task_id}).fetchone()


def is_walking(session: Session, walk: WalkState) -> bool:
    """Whether a background worker goes on with it now."""
    parameters = {**attempts_as_arrays([Attempt(walk.task_id, walk.attempt)]), "was_seen": True}
    return session.execute(queries.query("running_attempts"), parameters).fetchone() is not None
