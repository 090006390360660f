"""Statements that stand alone (``atomic=False``): VACUUM, CREATE INDEX CONCURRENTLY, CALL with COMMIT.

They run at top level, with no gate and no wrapper, and so on a launching session of their own, where
one handle cannot be taken for another. Their end is found by polling, and their outcome is stored
after it: should everything of ours die in between, nobody can know how far they came.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors, sql

from celery_pgbg.database import queries
from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.binding import bind
from celery_pgbg.database.counts import Counts
from celery_pgbg.database.launcher import Launcher
from celery_pgbg.database.sessions import Session
from celery_pgbg.database.slots import SlotLine
from celery_pgbg.database.values import from_exception, is_of_worker
from celery_pgbg.errors import ConfigurationError, SessionLost
from celery_pgbg.handles import Handle
from celery_pgbg.orders import Interruption, Order, Watch
from celery_pgbg.outcomes import Cancelled, Detached, Ending, ErrorReport, Lost, Raised, Returned

logger = logging.getLogger(__name__)

#: Pauses between two looks at a running statement, in seconds; growing from the first to the longest.
_FIRST_LOOK, _LONGEST_LOOK = 0.01, 0.5

#: Nobody could read it without holding a snapshot, which such statements as CREATE INDEX CONCURRENTLY wait for.
_TOLD_TOO_MUCH = ErrorReport(
    "54000",
    "the statement was stopped: its rows and messages are more than fits in the queue of its background worker",
    {"message_hint": "A task with atomic=False returns its command tag only. Leave out VERBOSE and rows."},
)

_UNKNOWN = "it stood alone, so nobody can know how far it came"


class StandaloneLauncher(Launcher):
    """A launcher for one statement that stands alone."""

    def __init__(self, open_session: Callable[[], Session], order: Order) -> None:
        super().__init__(open_session)
        self._order = order
        self._attempt = {"task_id": order.attempt.task_id, "attempt": order.attempt.number}

    def record(self) -> tuple[str, int | None]:
        """Put the attempt on record before its launch.

        Returns:
            ``recorded``, or what an earlier delivery left: ``finished``, ``attached`` with the PID of
            its live worker, or ``gone`` with neither a worker nor an outcome.
        """
        with self._exclusive() as session:
            parameters = {
                **self._attempt,
                "task_name": self._order.task_name,
                "application_name": self._order.application_name,
                "nodename": self._order.nodename,
            }
            row = session.execute(queries.query("record_standalone"), parameters).fetchone()
            assert row is not None
            return row[0], row[1]

    def forget(self) -> None:
        """Take the record back: the launch did not happen."""
        with self._exclusive() as session:
            # Not to be taken again: it may be a role that cannot be taken.
            session.execute("RESET ROLE")
            session.execute(queries.query("delete_execution"), self._attempt)

    def launch_now(self) -> Handle | None:
        """Launch at top level; None where the server has no free slot.

        From here on the session acts as the task's role, which the handle belongs to.

        Raises:
            ConfigurationError: that role may not launch.
        """
        order = self._order
        with self._exclusive() as session:
            statement = bind(session, order.query, order.params)
            query = queries.query("launch_standalone").format(launch_function=self.capabilities.identifier("launch"))
            if order.role is not None:
                _take_role(session, order.role)
            try:
                with session.transaction():
                    settings = {**order.settings, "application_name": order.application_name}
                    session.execute(queries.query("set_locally"), {"settings": json.dumps(settings)})
                    row = session.execute(query, {"statement": statement}).fetchone()
            except errors.InsufficientResources:
                return None
            except errors.InsufficientPrivilege as exc:
                if order.role is None:
                    raise
                raise ConfigurationError(
                    f"role {order.role!r} may not launch background workers, which with atomic=False it has to by "
                    f"itself ({exc.diag.message_primary}): run `celery -A yourproject pgbg install "
                    f"--grant-to {order.role}` as a superuser"
                ) from exc
            assert row is not None
            return Handle(row[0], row[1])

    def put_on_record(self, handle: Handle) -> None:
        """Add the handle to the record."""
        self._as_ourselves("update_handle", {**self._attempt, "pid": handle.pid, "cookie": handle.cookie})

    def result_of(self, handle: Handle) -> Returned | Raised:
        """Read the command tag or the error of a stopped worker, which ends its handle."""
        if self.capabilities.name("error_info") and (report := self.error_of(handle)):
            return Raised(report)
        with self._exclusive() as session:
            query = queries.query("consume_result").format(result_function=self.capabilities.identifier("result"))
            try:
                row = session.execute(query, {"pid": handle.pid, "cookie": handle.cookie}).fetchone()
            except psycopg.Error as exc:
                if is_of_worker(exc):
                    return Raised(from_exception(exc))
                # It returned rows, which nobody asked for and whose types nobody knows.
                row = None
        return Returned(row[0] if row else _first_word(self._order.query))

    def store(self, ending: Returned | Raised) -> None:
        """Store the outcome, for redeliveries and the result backend."""
        report = ending.report if isinstance(ending, Raised) else None
        parameters = {
            **self._attempt,
            "succeeded": report is None,
            "command_tag": ending.value if isinstance(ending, Returned) else None,
            "sqlstate": report and report.sqlstate,
            "message": report and report.message,
            "error_fields": report and json.dumps(report.fields),
        }
        self._as_ourselves("store_outcome", parameters)

    def live_worker(self) -> int | None:
        """Find the PID of the live worker by backend type and application name, in any session."""
        row = self._as_ourselves("find_worker", {"application_name": self._order.application_name})
        return row[0] if row else None

    def terminate_live_worker(self) -> None:
        """Stop the live worker, found in the same way: the PID in the handle may be wrong."""
        self._as_ourselves("terminate_worker", {"application_name": self._order.application_name})

    def _as_ourselves(self, statement: str, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
        """Run one of our statements, not as the task's role."""
        with self._exclusive() as session:
            role = self._order.role
            if role is not None:
                session.execute("RESET ROLE")
            cursor = session.execute(queries.query(statement), parameters)
            row = cursor.fetchone() if cursor.description else None
            if role is not None:
                _take_role(session, role)
            return row


def _take_role(session: Session, role: str) -> None:
    session.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


def run_standalone(
    order: Order, watch: Watch, open_session: Callable[[], Session], line: SlotLine, counts: Counts
) -> Ending:
    """Run a statement that stands alone to its end, in the calling thread.

    Raises:
        BindingError: the query and its arguments do not fit.
        ConfigurationError: extension or privilege are missing, or the server refuses us.
    """
    launcher = StandaloneLauncher(open_session, order)
    try:
        state, pid = _record(launcher, watch)
        if state == "interrupted":
            return _interrupted(watch)
        if state == "finished":
            return _stored(launcher, order) or Lost("its outcome was deleted")
        if state == "gone":
            return Lost(f"an earlier delivery's background worker ended unseen; {_UNKNOWN}", "unknown")
        if state == "attached":
            logger.info("%s runs already, in background worker %d: attached", order.attempt, pid)
            counts.add("attached")
            watch.accept(pid or 0)
            return _follow(launcher, order, watch)
        return _launch_and_watch(launcher, order, watch, line, counts)
    finally:
        launcher.close()


def _record(launcher: StandaloneLauncher, watch: Watch) -> tuple[str, int | None]:
    backoff = Backoff()
    while watch.interruption is None:
        try:
            return launcher.record()
        except SessionLost as exc:
            logger.warning("%s cannot be launched, trying again: %s", watch.attempt, exc)
            watch.wait(backoff.next())
    return "interrupted", None


def _launch_and_watch(
    launcher: StandaloneLauncher, order: Order, watch: Watch, line: SlotLine, counts: Counts
) -> Ending:
    try:
        handle = _launch(launcher, watch, line)
    except SessionLost:
        return Lost(f"the session was lost while launching; {_UNKNOWN}", "unknown")
    except psycopg.Error as exc:
        launcher.forget()
        return Raised(from_exception(exc))
    except Exception:
        launcher.forget()
        raise
    if handle is None:
        launcher.forget()
        return _interrupted(watch)
    counts.add("launched")
    try:
        launcher.put_on_record(handle)
        watch.accept(handle.pid, handle.cookie)
        ending = _poll(launcher, watch, handle)
        if isinstance(ending, (Returned, Raised)):
            launcher.store(ending)
        if isinstance(ending, (Cancelled, Detached)):
            return ending
        # Another process may have revoked it, and has left that as its outcome.
        return _stored(launcher, order) or ending
    except SessionLost as exc:
        logger.warning("%s: %s; looking for its background worker", watch.attempt, exc)
        watch.accept(handle.pid, handle.cookie)
        return _follow(launcher, order, watch)


def _launch(launcher: StandaloneLauncher, watch: Watch, line: SlotLine) -> Handle | None:
    try:
        while watch.interruption is None:
            if line.join(watch) and (handle := launcher.launch_now()):
                return handle
            line.wait(watch)
    finally:
        line.leave(watch)
    return None


def _poll(launcher: StandaloneLauncher, watch: Watch, handle: Handle) -> Ending:
    """Wait for the end in the launching session."""
    pause = _FIRST_LOOK
    signalled = is_blocked = False
    while True:
        if launcher.states().get(handle) != "running":
            ending = launcher.result_of(handle)
            return _named(ending, signalled, is_blocked)
        if watch.interruption is Interruption.DETACH:
            return Detached()
        if pause == _LONGEST_LOOK and launcher.blocked([handle]) and launcher.live_worker() == handle.pid:
            launcher.terminate_live_worker()
            is_blocked = True
        if watch.interruption is not None:
            signalled = True
            launcher.terminate_live_worker()
            pause = min(pause, _FIRST_LOOK * 5)
        pause = _pause(watch, pause)


def _pause(watch: Watch, seconds: float) -> float:
    """Wait before the next look; an interruption ends the wait once. Returns the next wait."""
    if watch.interruption is None:
        watch.wait(seconds)
    else:
        watch.wait_for_end(seconds)
    return min(seconds * 1.5, _LONGEST_LOOK)


def _named(ending: Returned | Raised, signalled: bool, was_blocked: bool) -> Ending:
    """An error of termination is our cancel, if we sent one, else somebody else's doing."""
    if isinstance(ending, Raised) and ending.report.sqlstate in ("57014", "57P01"):
        if signalled:
            return Cancelled()
        if was_blocked:
            return Raised(_TOLD_TOO_MUCH)
        if "timeout" not in ending.report.message:
            return Lost(f"its background worker was ended from outside: {ending.report.message}", "unknown")
    return ending


def _follow(launcher: StandaloneLauncher, order: Order, watch: Watch) -> Ending:
    """Wait for the end of a worker whose handle is not ours: for its outcome, or for its absence."""
    pause = _FIRST_LOOK
    backoff = Backoff()
    absent = 0
    while True:
        if watch.interruption is Interruption.DETACH:
            return Detached()
        try:
            if ending := _stored(launcher, order):
                return ending
            absent = 0 if launcher.live_worker() else absent + 1
            if watch.interruption is not None:
                launcher.terminate_live_worker()
        except SessionLost as exc:
            logger.warning("%s: %s; trying again", watch.attempt, exc)
            watch.wait_for_end(backoff.next())
            continue
        if absent > 3:
            if watch.interruption is not None:
                return Cancelled()
            return Lost(f"its background worker ended unseen; {_UNKNOWN}", "unknown")
        pause = _pause(watch, max(pause, _LONGEST_LOOK) if absent else pause)


def _stored(launcher: StandaloneLauncher, order: Order) -> Ending | None:
    outcomes = launcher.read_outcomes([order.attempt])
    return outcomes[0].ending() if outcomes else None


def _interrupted(watch: Watch) -> Ending:
    return Detached() if watch.interruption is Interruption.DETACH else Cancelled()


def _first_word(query: Any) -> str:
    words = str(query).split() if isinstance(query, str) else []
    return words[0].upper() if words else ""
