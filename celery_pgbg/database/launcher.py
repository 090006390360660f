"""The launcher: one session that owns handles. Only it can cancel, detach or list what it launched."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, dict_row

from celery_pgbg.database import poolers, queries
from celery_pgbg.database.binding import bind, split
from celery_pgbg.database.capabilities import Capabilities, detect
from celery_pgbg.database.reuse import Reusable, ReusableWorkers
from celery_pgbg.database.schema import check_installed
from celery_pgbg.database.sessions import Session, abandon, is_dead
from celery_pgbg.database.values import StoredOutcome, from_exception
from celery_pgbg.errors import ConfigurationError, SessionLost
from celery_pgbg.handles import Attempt, Handle
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import ErrorReport

#: pg_background's own upper bound for the handles of one session.
SESSION_WORKER_LIMIT = 1000

#: How long closing waits for a call in progress, in seconds.
_CLOSE_SECONDS = 1.0

#: Handles that are done with are detached together, once there are this many.
_DETACH_BATCH = 32


@dataclass(frozen=True)
class Launch:
    """What came of asking for a launch.

    Attributes:
        state: ``launched`` by us; ``attached`` to a worker of an earlier delivery; ``finished``, the
            outcome is there; ``full``, the server has no free background worker slot.
        handle: of the worker that runs the attempt, for the first two.
    """

    state: Literal["launched", "attached", "finished", "full"]
    handle: Handle | None = None


@dataclass(frozen=True)
class _LaunchRow:
    state: Literal["launched", "attached", "finished", "ended"]
    pid: int | None
    cookie: int | None
    bgworker_id: int | None = None


class Launcher:
    """One launching session, opened when needed and again after a loss; any thread may call.

    Args:
        open_session: makes a connected session in autocommit mode.
    """

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open_session = open_session
        self._session: Session | None = None
        self._capabilities: Capabilities | None = None
        self._lock = threading.RLock()
        self._done: list[Handle] = []
        self._reusable = ReusableWorkers()
        self._may_reuse = True
        self._closed = False

    # --- launching ---------------------------------------------------------------------------

    def launch(self, order: Order) -> Launch:
        """Launch an attempt unless it has ended or runs already. Waits only for the server's answer.

        Raises:
            BindingError: the query and its arguments do not fit.
            SessionLost: the connection died; the attempt may run or not.
            ConfigurationError: extension, schema or privilege are missing.
            psycopg.Error: what the server says of the task's ``settings``.
        """
        with self._exclusive() as session:
            self._detach_done(session, at_least=_DETACH_BATCH)
            preamble, statement = split(bind(session, order.query, order.params))
            try:
                return self._launch(session, order, preamble, statement)
            except (errors.UndefinedFunction, errors.InvalidSchemaName):
                # Extension or schema were dropped under us, and perhaps made again elsewhere.
                self._prepare(session)
                return self._launch(session, order, preamble, statement)

    def _launch(self, session: Session, order: Order, preamble: str | None, statement: str) -> Launch:
        parameters = {
            "extension_schema": self.capabilities.schema,
            "launch_function": self._launch_function(order),
            "task_id": order.attempt.task_id,
            "attempt": order.attempt.number,
            "task_name": order.task_name,
            "application_name": order.application_name,
            "nodename": order.nodename,
            "preamble": preamble,
            "statement": statement,
            "returns": order.returns,
            "role": order.role,
            "settings": json.dumps(dict(order.settings)),
            "max_result_bytes": order.max_result_bytes,
            "notify": order.notify,
        }
        try:
            if order.reuse and self._may_reuse and not order.settings:
                row = self._launch_reusable(session, parameters)
            else:
                row = _fetch(session, "launch", parameters)
        except (errors.InsufficientResources, errors.ConfigurationLimitExceeded):
            self._dismiss_idle(session)
            self._detach_done(session)
            return Launch("full")
        assert row.state != "ended"
        if row.pid is None or row.cookie is None:
            return Launch(row.state)
        return Launch(row.state, Handle(row.pid, row.cookie))

    def _launch_reusable(self, session: Session, parameters: dict[str, Any]) -> _LaunchRow:
        """Hand over to a background worker that has ended its last task, or launch one that can be handed more."""
        while (worker := self._reusable.take()) is not None:
            row = _fetch(session, "hand_over", {**parameters, **_as_candidate(worker)})
            if row.state == "launched":
                worker.turn += 1
                self._reusable.add(worker)
            else:
                self._done.append(worker.handle)
            if row.state != "ended":
                return row
        row = _fetch(session, "launch_reusable", parameters)
        if row.state == "launched" and row.pid and row.cookie is not None and row.bgworker_id:
            self._reusable.add(Reusable(row.bgworker_id, Handle(row.pid, row.cookie)))
        return row

    def _dismiss_idle(self, session: Session) -> None:
        """Let reusable background workers without a task end now, since others need their slots."""
        idle = self._reusable.take_expired(0)
        if idle:
            session.execute(queries.query("dismiss"), {"bgworker_ids": [worker.bgworker_id for worker in idle]})
            self._done += [worker.handle for worker in idle]

    def _launch_function(self, order: Order) -> str | None:
        """Submit, where nobody reads a result and an error can be told without one (from 1.9 on)."""
        can = self.capabilities
        submits = order.ignore_result and not order.reuse and can.name("error_info") is not None
        return (can.name("submit") if submits else None) or can.name("launch")

    # --- handles -----------------------------------------------------------------------------

    def cancel(self, handle: Handle) -> bool:
        """Stop a background worker of this session; its transaction rolls back.

        Returns:
            False if the handle is not this session's (any more).
        """
        return self._about("cancel_handle", "cancel", handle)

    @property
    def has_idle(self) -> bool:
        """Whether a background worker seems to be free to take a task that may reuse one."""
        return self._reusable.has_idle

    def release(self, handle: Handle) -> None:
        """The worker's task has left an outcome: keep the handle if it can take another, else detach."""
        with self._lock:
            if not self._reusable.release(handle):
                self._done.append(handle)

    def detach(self, handle: Handle) -> None:
        """Forget a handle; does not stop its worker. Done later, together with others."""
        with self._lock:
            self._reusable.discard(handle)
            self._done.append(handle)

    def flush(self) -> None:
        """Detach now everything that waits for it."""
        with self._exclusive() as session:
            self._done += [worker.handle for worker in self._reusable.take_expired()]
            self._detach_done(session)

    def states(self) -> dict[Handle, Literal["running", "stopped"]]:
        """List this session's handles with their states."""
        with self._exclusive() as session:
            query = queries.query("handles").format(
                list_function=self.capabilities.identifier("list"), list_columns=self.capabilities.list_columns
            )
            states = {Handle(pid, cookie): state for pid, cookie, state in session.execute(query)}
            stopped = [handle for handle, state in states.items() if state == "stopped"]
            self._done += [handle for handle in stopped if self._reusable.discard(handle)]
            return states

    def error_of(self, handle: Handle) -> ErrorReport | None:
        """Read why a stopped worker failed, which may end its handle.

        Returns:
            None if it did not fail, or if the handle is not this session's (any more).
        """
        try:
            if self.capabilities.name("error_info") is not None:
                return self.error_info(handle)
            self._about("consume_result", "result", handle)
        except psycopg.Error as exc:
            # Without that line it is about reading the result, whose type we did not know.
            return from_exception(exc) if is_of_worker(exc) else None
        return None

    def error_info(self, handle: Handle) -> ErrorReport | None:
        """Read a stopped worker's error without ending the handle; None if it did not fail.

        Raises:
            ExtensionMissing: pg_background is older than 1.9.
            psycopg.Error: the handle is not this session's (any more).
        """
        with self._exclusive() as session:
            query = queries.query("error_info").format(error_info_function=self.capabilities.identifier("error_info"))
            with session.cursor(row_factory=dict_row) as cursor:
                row = cursor.execute(query, {"pid": handle.pid, "cookie": handle.cookie}).fetchone() or {}
        fields = {name: value for name, value in row.items() if value is not None}
        if "sqlstate" not in fields:
            return None
        return ErrorReport(fields.pop("sqlstate"), fields.pop("message", ""), fields)

    def progress(self, handles: list[Handle]) -> dict[Handle, tuple[int | None, str | None]]:
        """Read what running workers reported, percent and message, of those that did.

        Not of reusable ones: theirs may be that of an earlier task.
        """
        with self._exclusive() as session:
            handles = [handle for handle in handles if handle not in self._reusable]
            if not handles or self.capabilities.name("get_progress") is None:
                return {}
            query = queries.query("progress").format(progress_function=self.capabilities.identifier("get_progress"))
            rows = session.execute(query, _as_arrays(handles))
            return {Handle(pid, cookie): (percent, text) for pid, cookie, percent, text in rows if percent is not None}

    def publish_progress(self, progress: dict[Handle, tuple[int | None, str | None]]) -> None:
        """Put progress on record, where every session can read it."""
        with self._exclusive() as session:
            session.execute(
                queries.query("publish_progress"),
                {
                    **_as_arrays(list(progress)),
                    "percents": [percent for percent, _ in progress.values()],
                    "messages": [message for _, message in progress.values()],
                },
            )

    def stats(self) -> dict[str, Any]:
        """Read pg_background's own counters for this session; empty before 1.8."""
        with self._exclusive() as session:
            if self.capabilities.name("stats") is None:
                return {}
            query = queries.query("stats").format(stats_function=self.capabilities.identifier("stats"))
            with session.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(query).fetchone() or {}

    # --- attempts, in any session --------------------------------------------------------------

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

    # --- the session ---------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What the installed pg_background can do; connects if need be."""
        with self._exclusive():
            assert self._capabilities is not None
            return self._capabilities

    @property
    def server_worker_limit(self) -> int | None:
        """``max_worker_processes``, or None while there is no session; does not connect."""
        known = self._capabilities
        return known.server_worker_limit if known else None

    @property
    def backend_pid(self) -> int | None:
        """PID of the session itself, or None while there is none."""
        session = self._session
        return None if session is None or is_dead(session) else session.info.backend_pid

    def close(self) -> None:
        """End the session for good. Its workers run on; their handles are gone.

        A call that another thread has in progress may take a second to end, then it is cut off.
        """
        self._closed = True
        if self._lock.acquire(timeout=_CLOSE_SECONDS):
            try:
                self._drop()
            finally:
                self._lock.release()
        elif self._session is not None:
            abandon(self._session)

    def _drop(self) -> None:
        """End the session; the next call opens another."""
        with self._lock:
            session, self._session, self._capabilities = self._session, None, None
            self._done.clear()
            self._reusable.clear()
            if session is not None:
                session.close()

    @contextmanager
    def _exclusive(self, prepared: bool = True) -> Iterator[Session]:
        """The session for one short call; a death during it becomes ``SessionLost``.

        Args:
            prepared: what is installed in the database must be known, and complete.
        """
        with self._lock:
            session = self._connected()
            try:
                if prepared and self._capabilities is None:
                    self._prepare(session)
                yield session
            except psycopg.Error as exc:
                if isinstance(exc, (errors.UndefinedFunction, errors.InvalidSchemaName)):
                    # The extension was dropped, and perhaps made again elsewhere: look the next time.
                    self._capabilities = None
                if not is_dead(session):
                    raise
                self._drop()
                raise SessionLost(f"the launching session was lost: {exc}") from exc
            finally:
                # An exception raised into this thread, such as a time limit of prefork, leaves it in the middle.
                if session is self._session and session.info.transaction_status is TransactionStatus.ACTIVE:
                    self._drop()

    def _connected(self) -> Session:
        if self._session is not None and is_dead(self._session):
            self._drop()
        if self._closed:
            raise SessionLost("the launcher is closed")
        if self._session is None:
            self._session = self._open_session()
        return self._session

    def _prepare(self, session: Session) -> None:
        """Look at what is installed, and set the session up."""
        check_installed(session)
        capabilities = detect(session)
        if poolers.through_pooler(session):
            self._take_from_pooler(session, capabilities)
        limit = {"session_worker_limit": SESSION_WORKER_LIMIT}
        prepared = session.execute(queries.query("prepare_launcher"), limit).fetchone()
        self._may_reuse = bool(prepared and prepared[0])
        self._capabilities = capabilities

    def _take_from_pooler(self, session: Session, capabilities: Capabilities) -> None:
        """Make sure that the session stays ours; it may hold handles of who had it before."""
        if poolers.shares_sessions(session, self._open_session):
            raise ConfigurationError(poolers.NEEDS_SESSIONS)
        query = queries.query("detach_all").format(
            detach_function=capabilities.identifier("detach"),
            list_function=capabilities.identifier("list"),
            list_columns=capabilities.list_columns,
        )
        session.execute(query)

    def _about(self, statement: str, function: str, handle: Handle) -> bool:
        """Call one function about one handle; False where the handle is not ours (any more)."""
        with self._exclusive() as session:
            query = queries.query(statement).format(**{f"{function}_function": self.capabilities.identifier(function)})
            try:
                session.execute(query, {"pid": handle.pid, "cookie": handle.cookie})
            except (errors.UndefinedObject, errors.ObjectNotInPrerequisiteState) as exc:
                # The same codes may be the statement's own.
                if is_of_worker(exc):
                    raise
                return False
            return True

    def _detach_done(self, session: Session, at_least: int = 1) -> None:
        if len(self._done) < at_least:
            return
        handles, self._done = self._done, []
        query = queries.query("detach_handles").format(detach_function=self.capabilities.identifier("detach"))
        try:
            session.execute(query, _as_arrays(handles))
        except (errors.UndefinedObject, errors.ObjectNotInPrerequisiteState):
            # One is gone, by a reused PID or because its error was read: then one by one.
            for handle in handles:
                self._about("detach_handle", "detach", handle)


def _fetch(session: Session, name: str, parameters: dict[str, Any]) -> _LaunchRow:
    with session.cursor(row_factory=class_row(_LaunchRow)) as cursor:
        row = cursor.execute(queries.query(name), parameters).fetchone()
    assert row is not None
    return row


def _as_candidate(worker: Reusable) -> dict[str, int]:
    return {
        "bgworker_id": worker.bgworker_id,
        "last_turn": worker.turn,
        "bgworker_pid": worker.handle.pid,
        "bgworker_cookie": worker.handle.cookie,
    }


def is_of_worker(error: psycopg.Error) -> bool:
    """Tell a background worker's own error from one about its handle."""
    return "background worker" in (error.diag.context or "")


def _as_arrays(handles: list[Handle]) -> dict[str, list[Any]]:
    return {"pids": [handle.pid for handle in handles], "cookies": [handle.cookie for handle in handles]}


def attempts_as_arrays(attempts: list[Attempt]) -> dict[str, list[Any]]:
    """Attempts as the two array parameters that the queries take."""
    return {"task_ids": [a.task_id for a in attempts], "attempts": [a.number for a in attempts]}


def read_outcomes(session: Session, attempts: list[Attempt]) -> list[StoredOutcome]:
    """Read the outcomes of those attempts that have one, on any session."""
    with session.cursor(row_factory=class_row(StoredOutcome)) as cursor:
        return cursor.execute(queries.query("read_outcomes"), attempts_as_arrays(attempts)).fetchall()
