"""Pauses the walks of batched tasks, and lets them continue."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row

from celery_pgbg.database.sessions import Session
from celery_pgbg.execution import queries
from celery_pgbg.execution.records.attempts import attempts_as_arrays
from celery_pgbg.handles import Attempt


@dataclass(frozen=True)
class WalkState:
    """The record of a walk.

    Attributes:
        walk_id: the id in a message.
        task_name: Celery's name of its task.
        task_id: the task that has it now.
        attempt: the attempt of that task.
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
    """Pause the walk of a task before its next batch, after the batch in progress. False if there is no walk."""
    return session.execute(queries.query("walk_pause"), {"task_id": task_id}).fetchone() is not None


def unpause(session: Session, task_id: str) -> WalkState | None:
    """Let the walk of a task continue, and return its record; None if there is no walk."""
    with session.cursor(row_factory=class_row(WalkState)) as cursor:
        return cursor.execute(queries.query("walk_resume"), {"task_id": task_id}).fetchone()


def is_walking(session: Session, walk: WalkState) -> bool:
    """Whether a background worker runs the walk now."""
    parameters = {**attempts_as_arrays([Attempt(walk.task_id, walk.attempt)]), "was_seen": True}
    return session.execute(queries.query("running_attempts"), parameters).fetchone() is not None
