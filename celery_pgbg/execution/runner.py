"""The runner: takes an order to its end. There is one for each process and database, shared by all threads."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from celery_pgbg.database.sessions import Session, connect, read_dsn
from celery_pgbg.errors import PgbgError
from celery_pgbg.execution.control.stopping import Stop, breaks_off, despite_locks, forget_cancel, stop_attempt
from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.launching.launching_session import SESSION_WORKER_LIMIT
from celery_pgbg.execution.strategies.choice import Strategies
from celery_pgbg.execution.strategies.means import MOST_LAUNCHERS, Launchers, Means
from celery_pgbg.execution.waiting.listener import Listener
from celery_pgbg.execution.waiting.sweeper import Sweeper
from celery_pgbg.execution.waiting.watches import Watches, deliver
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Ending, StopReason
from celery_pgbg.settings import Settings
from celery_pgbg.watch import Watch

logger = logging.getLogger(__name__)

#: How long closing waits for each of its threads, in seconds.
_CLOSE_SECONDS = 5.0


class Runner:
    """Launches statements, waits for them, cancels them on demand.

    Args:
        dsn: where statements run.
        settings: the ``pgbg_*`` settings.
        nodename: the Celery worker's name, for ``pg_stat_activity``.

    Raises:
        ConfigurationError: libpq cannot read the DSN.
    """

    def __init__(self, dsn: str, settings: Settings, nodename: str | None = None) -> None:
        self._dsn = dsn
        self._address = read_dsn(dsn)
        self._settings = settings
        self._nodename = nodename or f"{os.getpid()}@{socket.gethostname()}"
        watches = Watches()
        number = settings.launchers or MOST_LAUNCHERS
        self.launchers = Launchers(
            (Launcher(self._opener("launcher"), settings.max_launches) for _ in range(number)),
            watches.__len__ if settings.launchers is None else None,
        )
        means = Means(settings, self._opener, self.launchers, self._start, watches)
        self._strategies = Strategies(means)
        self.watches, self.line, self.counts, self._standalone = (
            means.watches,
            means.line,
            means.counts,
            means.standalone,
        )
        self._listener = Listener(self._opener("listener"), self.watches, self.line.nudge_soon)
        self._sweeper = Sweeper(self.launchers, self.launchers.likely_free, self.watches, settings)
        self._started = False
        self._lock = threading.Lock()
        self._closing = threading.Event()

    # --- its life ------------------------------------------------------------------------------

    def check(self) -> None:
        """Connect, and check that statements can be launched.

        Raises:
            ConfigurationError: the server lacks something; the message names it.
            SessionLost: the server cannot be reached now.
        """
        self.launchers[0].capabilities  # noqa: B018 - a property that connects

    def close(self) -> None:
        """End all sessions and threads. Statements run on."""
        self._closing.set()
        with self._lock:
            for thread in (self._listener, self._sweeper):
                thread.stop()
            for launcher in self.launchers:
                launcher.close()
            for thread in (self._listener, self._sweeper):
                if thread.is_alive():
                    thread.join(_CLOSE_SECONDS)

    def describe(self) -> dict[str, Any]:
        """Describe the runner for ``inspect stats``: sessions, statements in flight, counts of ended ones."""
        info = self._address
        return {
            "database": f"{info.get('host', '')}:{info.get('port', 5432)}/{info.get('dbname', '')}",
            "launcher_pids": [pid for launcher in self.launchers if (pid := launcher.backend_pid)],
            "listener_pid": self._listener.backend_pid,
            "server_worker_limit": self.launchers[0].server_worker_limit,
            "session_worker_limit": SESSION_WORKER_LIMIT,
            "running": sum(watch.pid is not None for watch in self._watches_now()),
            "waiting_for_slot": len(self.line),
            **self.counts.as_dict(),
        }

    def _watches_now(self) -> list[Watch]:
        return [entry.watch for entry in self.watches.entries()] + list(self._standalone)

    def _start(self) -> None:
        with self._lock:
            if self._started or self._closing.is_set():
                return
            self._started = True
            if self._settings.notify:
                self._listener.start()
            self._sweeper.start()

    def _opener(self, purpose: str) -> Callable[[], Session]:
        def open_session() -> Session:
            return connect(
                self._dsn,
                application_name=f"pgbg {purpose} {self._nodename}"[:63],
                connect_timeout=self._settings.connect_timeout,
                answer_timeout=self._settings.answer_timeout,
            )

        return open_session

    # --- running -------------------------------------------------------------------------------

    def run(self, order: Order, watch: Watch) -> Ending:
        """Run an order to its end, in the calling thread, which waits.

        If the attempt already runs elsewhere, wait for it; if it has ended, return its outcome again. An interruption
        of the watch cancels the statement (or leaves it, for ``DETACH``).

        Raises:
            BindingError: the query and its arguments do not fit.
            ConfigurationError: extension, schema or privilege are missing, or the server refuses us.
        """
        try:
            ending = self._strategies.run(order, watch)
        except BaseException as exc:
            if not breaks_off(exc) or (ended := self._break_off(order, watch)) is None:
                raise
            ending = ended
        self.counts.add_ending(ending)
        self.line.nudge()
        return ending

    def stop(
        self, attempt: Attempt, reason: StopReason, message: str | None = None, may_run_again: bool = False
    ) -> Stop:
        """End an attempt of any process as cancelled, on a session of its own.

        If it ``may_run_again``, a launch after the stop runs it.

        Raises:
            SessionLost: the server cannot be reached.
        """
        opener = self._opener("stop")
        with opener() as session, despite_locks(opener, attempt.task_id, [attempt.number]):
            stopped = stop_attempt(session, attempt, reason, message)
            if may_run_again:
                forget_cancel(session, attempt, reason)
            return stopped

    def _break_off(self, order: Order, watch: Watch) -> Ending | None:
        """Leave nothing behind; if the attempt has just ended, its outcome stands and is returned."""
        try:
            if self.stop(order.attempt, "broken off") != "finished":
                return None
            for outcome in self.launchers.likely_free().read_outcomes([order.attempt]):
                deliver(watch, outcome)
        except (PgbgError, psycopg.Error) as exc:
            logger.error("%s: its statement could not be stopped, and runs on: %s", order.attempt, exc)
        return watch.ending
