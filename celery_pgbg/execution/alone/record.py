"""The record of a statement with ``atomic=False``, written by its launching session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from celery_pgbg.database.roles import leave_role, take_role
from celery_pgbg.database.sessions import Session
from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.execution import queries
from celery_pgbg.execution.control.stopping import stop_attempt, store_cancel
from celery_pgbg.execution.launching.handle_session import HandleSession
from celery_pgbg.execution.records.attempts import as_parameters, read_outcomes
from celery_pgbg.execution.records.endings import as_outcome
from celery_pgbg.execution.records.progress import publish_progress, read_progress
from celery_pgbg.handles import Attempt, Handle
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Raised, Returned
from celery_pgbg.texts import as_json
from celery_pgbg.watch import Watch

#: The time limits of statements, transactions and sessions; on a slow machine they would end a launching session.
_LIMITS = {
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
}


class StandaloneRecords(HandleSession):
    """A session for one statement; it keeps the statement's record, not as the task's role."""

    def __init__(self, open_session: Callable[[], Session], order: Order) -> None:
        super().__init__(open_session)
        self._order = order
        self._attempt = as_parameters(order.attempt)
        #: PIDs of our sessions that may have written the record.
        self._recorders: list[int] = []
        #: Whether a launch was sent, and the server did not refuse it.
        self.may_have_launched = False
        #: Whether a stop of our own background worker was sent.
        self.may_have_stopped = False

    def record(self) -> tuple[str, int | None]:
        """Write the attempt's record before its launch; again if the session was lost before the launch.

        Returns:
            ``recorded``, or what an earlier delivery left: ``finished``, ``attached`` with the PID of
            its live worker, or ``gone`` with neither a worker nor an outcome.
        """
        with self._exclusive() as session:
            self._delete_unlaunched(session)
            self._recorders.append(session.info.backend_pid)
            parameters = {
                **self._attempt,
                "task_name": self._order.task_name,
                "application_name": self._order.application_name,
                "nodename": self._order.nodename,
            }
            row = session.execute(queries.query("record_standalone"), parameters).fetchone()
            assert row is not None
            return row[0], row[1]

    def forget_unlaunched(self) -> None:
        """Take the record back that one of our sessions may have written before it was lost."""
        if self._recorders:
            with self._exclusive() as session:
                self._delete_unlaunched(session)

    def _delete_unlaunched(self, session: Session) -> None:
        if self._recorders:
            session.execute(queries.query("delete_unlaunched"), {**self._attempt, "launcher_pids": self._recorders})

    def forget(self) -> None:
        """Take the record back: the launch did not happen."""
        with self._exclusive() as session:
            # Not to be taken again: it may be a role that cannot be taken.
            leave_role(session)
            session.execute(queries.query("delete_execution"), self._attempt)

    def put_on_record(self, handle: Handle) -> None:
        """Add to the record the handle, and that its background worker was seen: so every session can identify it."""
        parameters = {"pid": handle.pid, "cookie": handle.cookie}
        with self._exclusive() as session:
            query = queries.query("seen_running").format(**self._names("list"))
            seen = session.execute(query, parameters).fetchone()
        self._as_ourselves("update_handle", {**self._attempt, **parameters, "seen_at": seen and seen[0]})

    def disown(self) -> None:
        """Note that our launching session is lost, and no longer tends the background worker."""
        self._as_ourselves("disown", self._attempt)

    def store(self, ending: Returned | Raised) -> None:
        """Store the outcome, for redeliveries and the result backend."""
        self._as_ourselves("store_outcome", {**self._attempt, **as_outcome(ending)})

    def terminate_own(self, handle: Handle) -> bool:
        """Stop the background worker of our own handle, as the base class does, and note that it was tried."""
        self.may_have_stopped = True
        return super().terminate_own(handle)

    def live_state(self) -> str | None:
        """Whether the attempt runs, in any session; see ``live_attempts.sql``."""
        row = self._as_ourselves("live_state", self._attempt)
        return row[0] if row else None

    def terminate_live_worker(self) -> bool:
        """Stop the background worker that another session launched, if the server shows that it runs this attempt."""
        row = self._as_ourselves("terminate_execution", {**self._attempt, "although_finished": False})
        return bool(row and row[0])

    def stop_live_worker(self) -> None:
        """Stop the background worker that another session launched, after storing the reason for all deliveries."""
        with self._ourselves() as session:
            stop_attempt(session, self._order.attempt, "revoked")

    def settle_revoke(self) -> None:
        """Store the revoke as the outcome of an attempt that we have stopped, for other deliveries."""
        with self._ourselves() as session:
            store_cancel(session, self._order.attempt, "revoked")

    def look_at_progress(self, watch: Watch, handle: Handle | None) -> None:
        """Report the statement's progress to a watch, and record it. The handle is ours, or None."""
        attempt = self._order.attempt
        reported = self.progress([handle]).get(handle) if handle else None
        with self._ourselves() as session:
            found = read_progress(session, [attempt])
            if attempt not in found:
                return
            progress = found[attempt].with_message_of(reported)
            if watch.show(*progress.shown) and progress.source != "record":
                publish_progress(session, {attempt: progress})

    def was_terminated(self, attempt: Attempt, handle: Handle | None = None) -> bool:
        """Whether another session has stopped it, as any session sees that.

        The statement is launched once, and its handle may not be recorded yet.
        """
        parameters = {**as_parameters(attempt), "pid": handle and handle.pid, "cookie": handle and handle.cookie}
        row = self._as_ourselves("was_terminated", parameters)
        return bool(row and row[0])

    def stored_outcome(self) -> StoredOutcome | None:
        """Read the outcome of the attempt, if it has one."""
        with self._ourselves() as session:
            return next(iter(read_outcomes(session, [self._order.attempt])), None)

    def _as_ourselves(self, statement: str, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
        """Run one of our statements, not as the task's role."""
        with self._ourselves() as session:
            cursor = session.execute(queries.query(statement), parameters)
            return cursor.fetchone() if cursor.description else None

    @contextmanager
    def _ourselves(self) -> Iterator[Session]:
        """The session, not as the task's role, for one call."""
        with self._exclusive() as session:
            role = self._order.role
            if role is not None:
                leave_role(session)
            yield session
            if role is not None:
                # The handle of its background worker belongs to it.
                take_role(session, role)

    def _set_locally(self, session: Session, more: Mapping[str, str]) -> None:
        """Resolve names as the statement will; its time limits do not hold for us."""
        settings = {name: value for name, value in self._order.settings.items() if name.lower() not in _LIMITS}
        settings |= {"application_name": self._order.application_name, **more}
        session.execute(queries.query("set_locally"), {"settings": as_json(settings)})
