"""The launcher: one session that owns handles. Only it can cancel, detach or list what it launched."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import class_row, dict_row

from celery_pgbg.database import queries
from celery_pgbg.database.attempts import AttemptSession
from celery_pgbg.database.binding import bind, split
from celery_pgbg.database.reuse import Reusable, ReusableWorkers
from celery_pgbg.database.sessions import Session
from celery_pgbg.database.values import from_exception, is_of_worker
from celery_pgbg.handles import Handle
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import ErrorReport

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


class Launcher(AttemptSession):
    """A launching session and the handles of what it launched; any thread may call."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        super().__init__(open_session)
        # Without the session's lock: who has ended shall not wait for a call that gets no answer.
        self._done: deque[Handle] = deque()
        self._reusable = ReusableWorkers()

    def _forget_all(self) -> None:
        self._done.clear()
        self._reusable.clear()

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
        if not self._reusable.release(handle):
            self._done.append(handle)

    def detach(self, handle: Handle) -> None:
        """Forget a handle; does not stop its worker. Done later, together with others."""
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

    def blocked(self, handles: list[Handle]) -> set[Handle]:
        """Find those running workers that wait for somebody to read what they tell; ``detach`` lets them go on."""
        if not handles:
            return set()
        with self._exclusive() as session:
            rows = session.execute(queries.query("blocked_workers"), {"pids": [handle.pid for handle in handles]})
            pids = {pid for (pid,) in rows}
        return {handle for handle in handles if handle.pid in pids}

    def error_of(self, handle: Handle) -> ErrorReport | None:
        """Read why a stopped worker failed, which may end its handle.

        Returns:
            None if it did not fail, or if the handle is not this session's (any more).
        """
        clipped = None
        try:
            if self.capabilities.name("error_info") is not None:
                clipped = self._error_info(handle)
                if clipped is None:
                    return None
            self._about("consume_result", "result", handle)
        except psycopg.Error as exc:
            if is_of_worker(exc):
                return from_exception(exc)
            # It is about reading the result, whose type we did not know, or which was not kept.
        return clipped

    def _error_info(self, handle: Handle) -> ErrorReport | None:
        """Read a stopped worker's error, clipped to some hundred bytes a field, without ending the handle.

        Returns:
            None if it did not fail.

        Raises:
            psycopg.Error: the handle is not this session's (any more).
        """
        with self._exclusive() as session:
            query = queries.query("error_info").format(error_info_function=self.capabilities.identifier("error_info"))
            with session.cursor(row_factory=dict_row) as cursor:
                cursor.adapters.register_loader("text", _ClippedTextLoader)
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
        handles = [self._done.popleft() for _ in range(len(self._done))]
        query = queries.query("detach_handles").format(detach_function=self.capabilities.identifier("detach"))
        try:
            session.execute(query, _as_arrays(handles))
        except (errors.UndefinedObject, errors.ObjectNotInPrerequisiteState):
            # One is gone, by a reused PID or because its error was read: then one by one.
            for handle in handles:
                self._about("detach_handle", "detach", handle)


class _ClippedTextLoader(Loader):
    """Loads text that may end in the middle of a character."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode(errors="ignore")


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


def _as_arrays(handles: list[Handle]) -> dict[str, list[Any]]:
    return {"pids": [handle.pid for handle in handles], "cookies": [handle.cookie for handle in handles]}
