"""What is known of attempts, whichever session launched them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import class_row

from celery_pgbg.database.sessions import Session
from celery_pgbg.database.values import StoredOutcome, own_context
from celery_pgbg.execution import queries
from celery_pgbg.execution.expiry import Expiry
from celery_pgbg.execution.launching_session import LaunchingSession
from celery_pgbg.execution.progress import Progress, publish_progress, read_progress
from celery_pgbg.execution.standalone_rows import StandaloneResult
from celery_pgbg.handles import Attempt, Handle
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import UNSEEN, ErrorReport, Raised, Returned


class AttemptSession(LaunchingSession):
    """Asks about attempts and stops them, also those of other sessions."""

    def read_outcomes(self, attempts: list[Attempt]) -> list[StoredOutcome]:
        """Read the outcomes of those attempts that have one."""
        with self._exclusive() as session:
            return read_outcomes(session, attempts)

    def running(self, attempts: list[Attempt], was_seen: bool = False) -> set[Attempt]:
        """Find those attempts whose recorded worker is alive, whichever session launched it.

        Args:
            attempts: whose workers to look for.
            was_seen: they have shown themselves, so that those not there now have ended. Else one that
                was launched in the last seconds counts as alive: it may not be visible yet.
        """
        with self._exclusive() as session:
            parameters = {**attempts_as_arrays(attempts), "was_seen": was_seen}
            rows = session.execute(queries.query("running_attempts"), parameters)
            return {Attempt(task_id, number) for task_id, number in rows}

    def terminate(self, attempt: Attempt) -> bool:
        """Stop the worker of an attempt that another session launched, if it is really that worker.

        Returns:
            False if there was no such worker.
        """
        with self._exclusive() as session:
            return terminate(session, attempt)

    def was_terminated(self, attempt: Attempt, handle: Handle) -> bool:
        """Whether a session that did not launch it has stopped the worker of our handle, or launched another since."""
        parameters = {**as_parameters(attempt), "pid": handle.pid, "cookie": handle.cookie}
        with self._exclusive() as session:
            row = session.execute(queries.query("was_terminated"), parameters).fetchone()
            return bool(row and row[0])

    def count_launches(self, order: Order) -> int:
        """Count how often an attempt was launched whose background worker was lost."""
        with self._exclusive() as session:
            parameters = {
                "task_id": order.attempt.task_id,
                "attempt": order.attempt.number,
                "task_name": order.task_name,
                "application_name": order.application_name,
                "nodename": order.nodename,
            }
            row = session.execute(queries.query("count_launches"), parameters).fetchone()
            assert row is not None
            return int(row[0])

    def forgive_launches(self, attempt: Attempt) -> None:
        """Do not count the launches so far, which we have ended ourselves."""
        with self._exclusive() as session:
            forgive_launches(session, attempt)

    def shows(self, attempt: Attempt) -> bool:
        """Whether a background worker runs an atomic attempt. Needs neither our schema nor the extension."""
        with self._exclusive(prepared=False) as session:
            return session.execute(queries.query("find_worker"), as_parameters(attempt)).fetchone() is not None

    def store_error(self, attempt: Attempt, report: ErrorReport) -> None:
        """Store as its outcome what a worker could not write itself, unless it has one."""
        with self._exclusive() as session:
            session.execute(queries.query("store_outcome"), {**as_parameters(attempt), **as_outcome(Raised(report))})

    def settle_lost(self, task_id: str | None = None) -> list[Attempt]:
        """Settle statements that stood alone and are lost, all or those of one task; returns them."""
        with self._exclusive() as session:
            return settle_lost(session, task_id)

    def read_progress(self, attempts: list[Attempt]) -> dict[Attempt, Progress]:
        """Read how far attempts have come, whichever session launched them."""
        with self._exclusive() as session:
            return read_progress(session, attempts)

    def publish_progress(self, progress: Mapping[Attempt, Progress]) -> None:
        """Put progress on record, where every session can read it."""
        with self._exclusive() as session:
            publish_progress(session, progress)

    def delete_expired(self, expiry: Expiry) -> bool:
        """Delete the next batch of outcomes and records that are too old. Returns whether there may be more."""
        with self._exclusive() as session:
            return expiry.delete_batch(session)


def settle_lost(session: Session, task_id: str | None = None) -> list[Attempt]:
    """Give an outcome to statements that stood alone and whose worker and launching session are gone without one.

    Args:
        session: any, in autocommit mode.
        task_id: only those of this task.

    Returns:
        Those that were settled.
    """
    parameters = {"task_id": task_id, "message": UNSEEN}
    rows = session.execute(queries.query("settle_lost"), parameters).fetchall()
    return [Attempt(found_id, number) for found_id, number, _ in rows]


def as_parameters(attempt: Attempt) -> dict[str, Any]:
    """An attempt as the two parameters that the queries take."""
    return {"task_id": attempt.task_id, "attempt": attempt.number}


def as_outcome(ending: Returned | Raised) -> dict[str, Any]:
    """An end that a launching session has seen, its value a ``StandaloneResult``, as ``store_outcome.sql`` takes it."""
    report = ending.report if isinstance(ending, Raised) else None
    result = ending.value if isinstance(ending, Returned) else StandaloneResult()
    return {
        **result.as_parameters(),
        "succeeded": report is None,
        "sqlstate": report and report.sqlstate,
        "message": report and report.message,
        "error_fields": report and json.dumps(_without_statement(report.fields)),
    }


def _without_statement(fields: Mapping[str, str]) -> dict[str, str]:
    """An error's fields without the statement and its values, which PL/pgSQL puts into the context."""
    return {**fields, "context": own_context(fields["context"])} if "context" in fields else dict(fields)


def terminate(session: Session, attempt: Attempt, although_finished: bool = False) -> bool:
    """Stop the background worker that runs an attempt, on any session.

    Args:
        session: in autocommit mode.
        attempt: whose.
        although_finished: also where the attempt has an outcome: our own cancel.

    Returns:
        False if there was no such worker.
    """
    parameters = {**as_parameters(attempt), "although_finished": although_finished}
    row = session.execute(queries.query("terminate_execution"), parameters).fetchone()
    return bool(row and row[0])


def forgive_launches(session: Session, attempt: Attempt) -> None:
    """Do not count the launches so far, which we have ended ourselves, against ``pgbg_max_launches``."""
    session.execute(queries.query("forgive_launches"), as_parameters(attempt))


def attempts_as_arrays(attempts: list[Attempt]) -> dict[str, list[Any]]:
    """Attempts as the two array parameters that the queries take."""
    return {"task_ids": [a.task_id for a in attempts], "attempts": [a.number for a in attempts]}


def read_outcomes(session: Session, attempts: list[Attempt]) -> list[StoredOutcome]:
    """Read the outcomes of those attempts that have one, on any session.

    One that cannot be read is a failure that says so, and does not keep the others from being read: with text that
    the server cannot send, as databases of the encoding SQL_ASCII may have, or written by somebody else.
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
