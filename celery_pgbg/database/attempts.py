"""What is known of attempts, whichever session launched them."""

from __future__ import annotations

from typing import Any

from psycopg import errors
from psycopg.rows import class_row

from celery_pgbg.database import queries
from celery_pgbg.database.launching_session import LaunchingSession
from celery_pgbg.database.sessions import Session
from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order


class AttemptSession(LaunchingSession):
    """Asks about attempts and stops them, also those of other sessions."""

    def read_outcomes(self, attempts: list[Attempt]) -> list[StoredOutcome]:
        """Read the outcomes of those attempts that have one."""
        with self._exclusive() as session:
            return read_outcomes(session, attempts)

    def running(self, attempts: list[Attempt], was_seen: bool = False) -> set[Attempt]:
        """Find those attempts whose recorded worker is alive, whoever launched it.

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
            parameters = {"task_id": attempt.task_id, "attempt": attempt.number}
            row = session.execute(queries.query("terminate_execution"), parameters).fetchone()
            return bool(row and row[0])

    def count_launches(self, order: Order) -> int:
        """Tell how often an attempt was launched, whose background worker was lost."""
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

    def shows(self, application_name: str) -> bool:
        """Whether a background worker of this name is alive. Needs neither our schema nor the extension."""
        with self._exclusive(prepared=False) as session:
            query = queries.query("find_worker")
            return session.execute(query, {"application_name": application_name}).fetchone() is not None

    def delete_expired(self, seconds: float) -> None:
        """Delete outcomes and records older than this."""
        with self._exclusive() as session:
            session.execute(queries.query("delete_expired"), {"age_ms": round(seconds * 1000)})


def attempts_as_arrays(attempts: list[Attempt]) -> dict[str, list[Any]]:
    """Attempts as the two array parameters that the queries take."""
    return {"task_ids": [a.task_id for a in attempts], "attempts": [a.number for a in attempts]}


def read_outcomes(session: Session, attempts: list[Attempt]) -> list[StoredOutcome]:
    """Read the outcomes of those attempts that have one, on any session.

    One with text that the server cannot send, as databases of the encoding SQL_ASCII may have, is a failure
    that says so, and does not keep the others from being read.
    """
    try:
        with session.cursor(row_factory=class_row(StoredOutcome)) as cursor:
            return cursor.execute(queries.query("read_outcomes"), attempts_as_arrays(attempts)).fetchall()
    except (errors.CharacterNotInRepertoire, errors.UntranslatableCharacter) as exc:
        if len(attempts) > 1:
            return [outcome for attempt in attempts for outcome in read_outcomes(session, [attempt])]
        message = f"the statement has ended, but its outcome cannot be read: {exc}"
        task_id, number = attempts[0].task_id, attempts[0].number
        return [StoredOutcome(task_id, number, succeeded=False, sqlstate=exc.sqlstate, message=message)]
