"""The launching session: opened when needed and again after a loss, set up, and used by one thread at a time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Literal, TypeVar

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from celery_pgbg.database import poolers
from celery_pgbg.database.capabilities import Capabilities, detect
from celery_pgbg.database.schema import check_installed, misfit
from celery_pgbg.database.sessions import (
    Reconnection,
    Session,
    abandon,
    is_dead,
    note_replaced,
    replaced_defaults,
    stay_idle,
)
from celery_pgbg.errors import ConfigurationError, SessionLost
from celery_pgbg.execution import queries
from celery_pgbg.handles import Handle
from celery_pgbg.texts import as_json

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Errors of a function of the extension that the server's files lack, or that was dropped.
MISFIT = (errors.UndefinedFunction, errors.UndefinedFile)

#: pg_background's own upper bound for the handles of one session.
SESSION_WORKER_LIMIT = 1000

#: A call that takes longer counts as stalled, in seconds. Most take milliseconds.
LONG_CALL = 1.0

#: How long a launch waits for the slot of a new kept handle, and the pause between two checks, in seconds.
_SLOT_SECONDS, _SLOT_PAUSE = 1.0, 0.003

#: What ``prepare_launcher`` sets for our own statements.
_OWN = {
    "default_transaction_isolation": "read committed",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "row_security": "on",
}

#: How long closing waits for a call in progress, in seconds.
_CLOSE_SECONDS = 1.0


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


class LaunchingSession:
    """One session that may launch; any thread may call.

    Before pg_background 2.0, the end of a session's last handle may crash the server. There the session keeps handles
    of harmless background workers, hidden from all callers.

    Args:
        open_session: makes a connected session in autocommit mode.
        max_launches: how often an attempt may be launched, by all sessions together; None: no limit.
    """

    #: How many such handles it keeps. A launch may end one of them, see ``StandaloneLauncher``.
    _kept_handles = 1

    def __init__(self, open_session: Callable[[], Session], max_launches: int | None = None) -> None:
        self._open_session = open_session
        self._max_launches = max_launches
        self._reconnection = Reconnection(open_session)
        self._session: Session | None = None
        self._capabilities: Capabilities | None = None
        self._lock = threading.RLock()
        self._in_call_since: float | None = None
        self._is_lent = False
        #: Whether its background workers may run more than one task; True until it is known.
        self.may_reuse = True
        self._queue_bytes = 65536
        #: What background workers inherit in place of our own session's parameters.
        self._inherited: dict[str, str] = {}
        self._kept: list[Handle] = []
        self._kept_at = -math.inf
        self._inherits_handles = False
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        """The abilities of the installed pg_background; connects if needed."""
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
        """PID of the session itself, or None without a session."""
        session = self._session
        return None if session is None or is_dead(session) else session.info.backend_pid

    @property
    def seconds_in_call(self) -> float:
        """Seconds that the present call has lasted; 0 without a call."""
        since = self._in_call_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def is_busy(self) -> bool:
        """Whether a thread uses the session now."""
        return self._is_lent or self._in_call_since is not None

    @property
    def is_stalled(self) -> bool:
        """Whether the present call takes so long that it may get no answer."""
        return self.seconds_in_call > LONG_CALL

    def take(self, seconds: float) -> bool:
        """Reserve the session for this thread until ``give_back``. False if other threads use it for so long."""
        if not self._lock.acquire(timeout=seconds):
            return False
        self._is_lent = True
        return True

    def give_back(self) -> None:
        """Let other threads use the session again."""
        self._is_lent = False
        self._lock.release()

    def close(self) -> None:
        """End the session for good. Its background workers run on; their handles are gone.

        Another thread's call gets a second to end, then it is aborted.
        """
        self._closed = True
        if self._lock.acquire(timeout=_CLOSE_SECONDS):
            try:
                self._drop()
            finally:
                self._lock.release()
        elif self._session is not None:
            abandon(self._session)

    def _forget_all(self) -> None:
        """The session is gone, and all its handles with it."""

    def _drop(self) -> None:
        """End the session; the next call opens another."""
        with self._lock:
            session, self._session, self._capabilities = self._session, None, None
            self._kept = []
            self._forget_all()
            if session is not None:
                session.close()

    @contextmanager
    def _exclusive(self, prepared: bool = True) -> Iterator[Session]:
        """Lend the session for one short call; its death during the call becomes ``SessionLost``.

        Args:
            prepared: whether the installation in the database must be known and complete.
        """
        with self._lock, self._timed():
            session = self._connected()
            try:
                if prepared and self._capabilities is None:
                    self._prepare(session)
                yield session
            except psycopg.Error as exc:
                if isinstance(exc, (errors.UndefinedFunction, errors.InvalidSchemaName)):
                    # The extension was dropped, and perhaps made again elsewhere: examine it again next time.
                    self._capabilities = None
                if not is_dead(session):
                    raise
                self._drop()
                raise SessionLost(f"the launching session was lost: {exc}") from exc
            finally:
                # An exception raised into this thread, such as a time limit of prefork, interrupts the call.
                if session is self._session and session.info.transaction_status is TransactionStatus.ACTIVE:
                    self._drop()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        outer = self._in_call_since
        self._in_call_since = outer or time.monotonic()
        try:
            yield
        finally:
            self._in_call_since = outer

    def _connected(self) -> Session:
        if self._session is not None and is_dead(self._session):
            self._drop()
        if self._closed:
            raise SessionLost("the launcher is closed")
        if self._session is None:
            self._session = self._reconnection.open()
        return self._session

    def _prepare(self, session: Session) -> None:
        """Examine the installation, and set up the session."""
        check_installed(session)
        capabilities = detect(session)
        if poolers.through_pooler(session):
            if poolers.shares_sessions(session, self._open_session):
                raise ConfigurationError(poolers.NEEDS_SESSIONS)
            self._inherits_handles = True
        stay_idle(session)
        limits = {"session_worker_limit": SESSION_WORKER_LIMIT, "max_launches": self._max_launches}
        prepared = session.execute(queries.query("prepare_launcher"), limits).fetchone()
        assert prepared is not None
        self._queue_bytes, self.may_reuse, is_standby, defaults = prepared[:4]
        note_replaced(session, {name: value for name, value in defaults.items() if value != _OWN[name]})
        self._inherited = replaced_defaults(session)
        if is_standby:
            raise SessionLost(
                f"{session.info.host}:{session.info.port} is a standby, which runs no tasks until it is promoted "
                "(with several hosts in the DSN, target_session_attrs=read-write finds the primary)"
            )
        if capabilities.function("get_progress") is None:
            _warn_once(
                f"pg_background {capabilities.version} has no progress messages: report_progress shows only the percent"
            )
        self._capabilities = capabilities

    @contextmanager
    def _fitting(self, session: Session) -> Iterator[None]:
        """Call functions of the extension, and nothing of a task's, in this block.

        Raises:
            ExtensionMissing: the server's files lack them, as after an update of the package alone.
        """
        try:
            yield
        except MISFIT as exc:
            if is_dead(session):
                raise
            self._capabilities = None
            raise misfit(session, exc) from exc

    def _inherited_with(self, settings: Mapping[str, str]) -> str | None:
        """Add a task's settings to those that our session has replaced. None if there are none."""
        wanted = {**self._inherited, **settings}
        return as_json(wanted) if wanted else None

    def _make_safe(self, session: Session, capabilities: Capabilities) -> None:
        """Before a launch, and before the end of a handle: make sure that a kept handle exists.

        A pooler's session may hold handles of an earlier client; these are given up.

        Raises:
            InsufficientResources: the server has no free slot for it.
        """
        if capabilities.keeps_a_handle:
            query = queries.query("keep_handle").format(launch_function=capabilities.identifier("launch"))
            while len(self._kept) < self._kept_handles:
                row = self._after_kept(session, lambda: session.execute(query).fetchone())
                assert row is not None
                self._kept.append(Handle(*row))
                self._kept_at = time.monotonic()
        if self._inherits_handles:
            query = queries.query("detach_others").format(
                detach_function=capabilities.identifier("detach"),
                list_function=capabilities.identifier("list"),
                list_columns=capabilities.list_columns,
            )
            session.execute(query, {"kept_pids": [handle.pid for handle in self._kept]})
            self._inherits_handles = False

    def _after_kept(self, session: Session, launch: Callable[[], T]) -> T:
        """Launch. If the server has no free slot, and a kept handle is new: again after its background worker's end.

        Otherwise the kept handle would cost the session the slot that was free, and the next might be another's.

        Raises:
            InsufficientResources: the server has no free slot.
        """
        try:
            return launch()
        except errors.InsufficientResources:
            if not self._await_kept(session):
                raise
            return launch()

    def _await_kept(self, session: Session) -> bool:
        """Wait until new kept handles occupy no slot any more. False if there are none, or if it takes too long."""
        while time.monotonic() < self._kept_at + _SLOT_SECONDS:
            states = self._all_states(session)
            # The slot of a stopped one is free again.
            if not any(states.get(kept) == "running" for kept in self._kept):
                return True
            time.sleep(_SLOT_PAUSE)
        return False

    def _all_states(self, session: Session) -> dict[Handle, Literal["running", "stopped"]]:
        """List all handles of the session, kept ones too, with their states."""
        query = queries.query("handles").format(
            list_function=self.capabilities.identifier("list"), list_columns=self.capabilities.list_columns
        )
        return {Handle(pid, cookie): state for pid, cookie, state in session.execute(query)}

    def _without_kept(self, pid: int) -> None:
        """A launch got this PID: a kept handle with the same PID is gone, so another must be kept."""
        self._kept = [handle for handle in self._kept if handle.pid != pid]
