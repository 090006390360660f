"""What is known of attempts, whichever session launched them."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import class_row

from celery_pgbg.database.arrays import ArrayText, as_array
from celery_pgbg.database.sessions import Session
from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.execution import queries
from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import UNSEEN


def settle_lost(session: Session, task_id: str | None = None) -> list[Attempt]:
    """Store the outcome ``lost`` for statements that stood alone, if background worker and launching session are gone.

    Args:
        session: any, in autocommit mode.
        task_id: only statements of this task; None: all.

    Returns:
        The attempts that are settled now.
    """
    parameters = {"task_id": task_id, "message": UNSEEN}
    # Planned for the tables as they are now, see docs/decisions/101-*.md.
    rows = session.execute(queries.query("settle_lost"), parameters, prepare=False).fetchall()
    return [Attempt(found_id, number) for found_id, number, _ in rows]


def as_parameters(attempt: Attempt) -> dict[str, Any]:
    """An attempt as the two parameters that the queries take."""
    return {"task_id": attempt.task_id, "attempt": attempt.number}


def terminate(session: Session, attempt: Attempt, although_finished: bool = False) -> bool:
    """Stop the background worker that runs an attempt, on any session.

    Args:
        session: in autocommit mode.
        attempt: the attempt to stop.
        although_finished: also if the attempt has an outcome: our own cancel.

    Returns:
        False if there was no such background worker.
    """
    parameters = {**as_parameters(attempt), "although_finished": although_finished}
    row = session.execute(queries.query("terminate_execution"), parameters).fetchone()
    return bool(row and row[0])


def forgive_launches(session: Session, attempt: Attempt) -> None:
    """Do not count the launches so far, which we have ended ourselves, against ``pgbg_max_launches``."""
    session.execute(queries.query("forgive_launches"), as_parameters(attempt))


def attempts_as_arrays(attempts: list[Attempt]) -> dict[str, ArrayText]:
    """Attempts as the two array parameters that the queries take."""
    return {"task_ids": as_array(a.task_id for a in attempts), "attempts": as_array(a.number for a in attempts)}


def read_outcomes(session: Session, attempts: list[Attempt]) -> list[StoredOutcome]:
    """Read the outcomes of those attempts that have one, on any session.

    An outcome that cannot be read becomes a failure with that message; the others are still read. Such an outcome has
    text that the server cannot send, as in a database with the encoding SQL_ASCII, or another program wrote it.
    """
    try:
        with session.cursor(row_factory=class_row(StoredOutcome)) as cursor:
            return cursor.execute(queries.query("read_outcomes"), attempts_as_arrays(attempts)).fetchall()
    except psycopg.DataError as exc:
        if len(attempts) > 1:
            return [outcome for attempt in attempts for outcome in read_outcomes(session, [attempt])]
        message = f"the statement has ended, but its outcome cannot be read: {exc}"
        task_id, number = attempts[0].task_id, attempts[0].number
        return [StoredOutcome(task_id, number, succeeded=False, sqlstate=exc.sqlstate, message=message)]
