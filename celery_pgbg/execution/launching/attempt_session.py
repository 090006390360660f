"""A launching session that asks about attempts, and stops them."""

from __future__ import annotations

from collections.abc import Mapping

from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.execution import queries
from celery_pgbg.execution.launching.launching_session import LaunchingSession
from celery_pgbg.execution.records.attempts import (
    as_parameters,
    attempts_as_arrays,
    forgive_launches,
    read_outcomes,
    settle_lost,
    terminate,
)
from celery_pgbg.execution.records.endings import as_outcome
from celery_pgbg.execution.records.expiry import Expiry
from celery_pgbg.execution.records.progress import Progress, publish_progress, read_progress
from celery_pgbg.handles import Attempt, Handle
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import ErrorReport, Raised


class AttemptSession(LaunchingSession):
    """Queries attempts and stops them, also attempts that other sessions launched."""

    def read_outcomes(self, attempts: list[Attempt]) -> list[StoredOutcome]:
        """Read the outcomes of the attempts that have an outcome."""
        with self._exclusive() as session:
            return read_outcomes(session, attempts)

    def running(self, attempts: list[Attempt], was_seen: bool = False) -> set[Attempt]:
        """Find the attempts whose recorded background worker is alive, whichever session launched it.

        Args:
            attempts: the attempts to check.
            was_seen: the background workers were visible before, so one that is not visible now has ended. Otherwise
                one that was launched in the last seconds counts as alive: it may not be visible yet.
        """
        with self._exclusive() as session:
            parameters = {**attempts_as_arrays(attempts), "was_seen": was_seen}
            # Planned for the tables as they are now, see docs/decisions/101-*.md.
            rows = session.execute(queries.query("running_attempts"), parameters, prepare=False)
            return {Attempt(task_id, number) for task_id, number in rows}

    def terminate(self, attempt: Attempt) -> bool:
        """Stop the background worker of an attempt that another session launched, after a check of its identity.

        Returns:
            False if there was no such worker.
        """
        with self._exclusive() as session:
            return terminate(session, attempt)

    def was_terminated(self, attempt: Attempt, handle: Handle) -> bool:
        """Whether another session has stopped the background worker of our handle, or launched another one since."""
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
        """Do not count the launches so far, because we ended them ourselves."""
        with self._exclusive() as session:
            forgive_launches(session, attempt)

    def shows(self, attempt: Attempt) -> bool:
        """Whether a background worker runs an atomic attempt. Works without our schema and the extension."""
        with self._exclusive(prepared=False) as session:
            return session.execute(queries.query("find_worker"), as_parameters(attempt)).fetchone() is not None

    def store_error(self, attempt: Attempt, report: ErrorReport) -> None:
        """Store the outcome that a background worker could not write itself, unless the attempt has an outcome."""
        with self._exclusive() as session:
            session.execute(queries.query("store_outcome"), {**as_parameters(attempt), **as_outcome(Raised(report))})

    def settle_lost(self, task_id: str | None = None) -> list[Attempt]:
        """Settle lost statements with ``atomic=False``, all or those of one task; returns them."""
        with self._exclusive() as session:
            return settle_lost(session, task_id)

    def read_progress(self, attempts: list[Attempt]) -> dict[Attempt, Progress]:
        """Read the progress of attempts, whichever session launched them."""
        with self._exclusive() as session:
            return read_progress(session, attempts)

    def publish_progress(self, progress: Mapping[Attempt, Progress]) -> None:
        """Write progress into the records, where every session can read it."""
        with self._exclusive() as session:
            publish_progress(session, progress)

    def delete_expired(self, expiry: Expiry) -> bool:
        """Delete the next batch of expired outcomes and records. Returns whether there may be more."""
        with self._exclusive() as session:
            return expiry.delete_batch(session)
