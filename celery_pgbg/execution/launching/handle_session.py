"""One session and its handles: only this session can cancel, detach or list them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

import psycopg
from psycopg import errors, sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import dict_row

from celery_pgbg.database.sessions import Session
from celery_pgbg.database.values import from_exception, is_of_worker
from celery_pgbg.execution import queries
from celery_pgbg.execution.launching.attempt_session import AttemptSession
from celery_pgbg.execution.records.attempts import as_parameters
from celery_pgbg.handles import Attempt, Handle
from celery_pgbg.outcomes import ErrorReport

#: Unneeded handles are detached together, once there are this many.
DETACH_BATCH = 32


class HandleSession(AttemptSession):
    """A session and the handles of its launches; any thread may call."""

    def __init__(self, open_session: Callable[[], Session], max_launches: int | None = None) -> None:
        super().__init__(open_session, max_launches)
        # Without the session's lock: an ended task must not wait for another task's call that gets no answer.
        self._done: deque[Handle] = deque()

    def _forget_all(self) -> None:
        self._done.clear()

    def cancel(self, attempt: Attempt, handle: Handle) -> bool:
        """Stop a background worker of this session; its transaction rolls back.

        If it runs the attempt, pg_background stops it; else ``pg_terminate_backend``, because before 2.0.2 an early
        cancel can crash the server.

        Returns:
            False if the background worker is gone, cannot be signalled yet, or its handle is not (or no longer) this
            session's.
        """
        if self._about("cancel_handle", "cancel", handle, as_parameters(attempt)):
            return True
        return self.terminate_own(handle)

    def terminate_own(self, handle: Handle) -> bool:
        """Stop a background worker of this session if it is listed as running; then its PID is right."""
        with self._exclusive() as session:
            query = queries.query("terminate_handle").format(**self._names("list"))
            row = session.execute(query, {"pid": handle.pid, "cookie": handle.cookie}).fetchone()
            return bool(row and row[0])

    def detach(self, handle: Handle) -> None:
        """Forget a handle; its background worker is not stopped. Done later, together with others."""
        self._done.append(handle)

    def flush(self) -> None:
        """Detach all waiting handles now."""
        with self._exclusive() as session:
            self._detach_done(session)

    def states(self) -> dict[Handle, Literal["running", "stopped"]]:
        """List this session's handles with their states."""
        with self._exclusive() as session:
            self._make_safe(session, self.capabilities)
            states = self._all_states(session)
            for kept in self._kept:
                states.pop(kept, None)
            return states

    def blocked(self, handles: list[Handle]) -> set[Handle]:
        """Find running background workers that wait until their messages are read; ``detach`` lets them continue."""
        if not handles:
            return set()
        with self._exclusive() as session:
            rows = session.execute(queries.query("blocked_workers"), {"pids": [handle.pid for handle in handles]})
            pids = {pid for (pid,) in rows}
        return {handle for handle in handles if handle.pid in pids}

    def error_of(self, handle: Handle) -> ErrorReport | None:
        """Read why a stopped background worker failed, which may end its handle.

        Returns:
            None if it did not fail, or if the handle is not (or no longer) this session's.
        """
        clipped = None
        try:
            if self.capabilities.name("error_info") is not None:
                clipped = self._error_info(handle)
            # Only the result has the error of a background worker that was ended.
            self._about("consume_result", "result", handle)
        except psycopg.Error as exc:
            if is_of_worker(exc):
                return from_exception(exc)
            # This error is about reading the result: its type was unknown, or the result was not kept.
        return clipped

    def _error_info(self, handle: Handle) -> ErrorReport | None:
        """Read a stopped background worker's error, clipped to some hundred bytes a field, without ending the handle.

        Returns:
            None if it did not fail.

        Raises:
            psycopg.Error: the handle is not this session's (any more).
        """
        with self._exclusive() as session:
            query = queries.query("error_info").format(**self._names("error_info"))
            with session.cursor(row_factory=dict_row) as cursor:
                cursor.adapters.register_loader("text", _ClippedTextLoader)
                row = cursor.execute(query, {"pid": handle.pid, "cookie": handle.cookie}).fetchone() or {}
        fields = {name: value for name, value in row.items() if value is not None}
        if "sqlstate" not in fields:
            return None
        return ErrorReport(fields.pop("sqlstate"), fields.pop("message", ""), fields, without_outcome=True)

    def progress(self, handles: list[Handle]) -> dict[Handle, tuple[int | None, str | None]]:
        """Read percent and message that background workers of this session reported to pg_background.

        The report of a reusable background worker may be from an earlier task.
        """
        with self._exclusive() as session:
            if self.capabilities.name("get_progress") is None:
                return {}
            query = queries.query("progress").format(**self._names("get_progress"))
            rows = session.execute(query, _as_arrays(handles))
            return {Handle(pid, cookie): (percent, text) for pid, cookie, percent, text in rows if percent is not None}

    def stats(self) -> dict[str, Any]:
        """Read pg_background's own counters for this session; empty before 1.8."""
        with self._exclusive() as session:
            if self.capabilities.name("stats") is None:
                return {}
            query = queries.query("stats").format(**self._names("stats"))
            with session.cursor(row_factory=dict_row) as cursor:
                stats = cursor.execute(query).fetchone() or {}
            for name in ("workers_launched", "workers_completed"):
                stats[name] -= len(self._kept)
            return stats

    def _names(self, function: str) -> dict[str, sql.Composable]:
        """The extension's names for a statement."""
        names: dict[str, sql.Composable] = {f"{function}_function": self.capabilities.identifier(function)}
        match function:
            case "list":
                names["list_columns"] = self.capabilities.list_columns
            case "cancel":
                names["no_grace"] = self.capabilities.no_grace
            case "result":
                # The command tag of a statement that returns nothing, or the NULL of run_v1.
                names |= {"columns": sql.SQL("value pg_catalog.text"), "value": sql.SQL("pg_catalog.min(value)")}
            case "error_info":
                names["error_fields"] = self.capabilities.error_fields
        return names

    def _about(
        self, statement: str, function: str, handle: Handle, parameters: Mapping[str, Any] | None = None
    ) -> bool:
        """Call one function about one handle; False if the handle is not ours, or nothing was called."""
        with self._exclusive() as session:
            query = queries.query(statement).format(**self._names(function))
            if function != "cancel":
                self._make_safe(session, self.capabilities)
            try:
                cursor = session.execute(query, {"pid": handle.pid, "cookie": handle.cookie, **(parameters or {})})
                return bool(cursor.rowcount) or function != "cancel"
            except (errors.UndefinedObject, errors.ObjectNotInPrerequisiteState) as exc:
                # The same codes may be the statement's own.
                if is_of_worker(exc):
                    raise
                return False

    def _detach_done(self, session: Session, at_least: int = 1) -> None:
        """Detach unneeded handles, if there are so many; ``DETACH_BATCH`` if no caller waits."""
        if len(self._done) < at_least:
            return
        handles = [self._done.popleft() for _ in range(len(self._done))]
        query = queries.query("detach_handles").format(**self._names("detach"))
        try:
            self._make_safe(session, self.capabilities)
        except errors.InsufficientResources:
            self._done += handles
            return
        try:
            session.execute(query, _as_arrays(handles))
        except (errors.UndefinedObject, errors.ObjectNotInPrerequisiteState):
            # One handle is gone, by a reused PID or because its error was read: detach one by one.
            for handle in handles:
                self._about("detach_handle", "detach", handle)


class _ClippedTextLoader(Loader):
    """Loads text that may end within a character."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode(errors="ignore")


def _as_arrays(handles: list[Handle]) -> dict[str, list[Any]]:
    return {"pids": [handle.pid for handle in handles], "cookies": [handle.cookie for handle in handles]}
