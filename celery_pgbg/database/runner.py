"""The runner: takes an order to its end. One in each process and database, shared by all threads."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors

from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.counts import Counts
from celery_pgbg.database.launcher import Launch, Launcher
from celery_pgbg.database.launching_session import SESSION_WORKER_LIMIT
from celery_pgbg.database.listener import Listener
from celery_pgbg.database.sessions import Session, connect, read_dsn
from celery_pgbg.database.slots import SlotLine
from celery_pgbg.database.standalone import run_standalone
from celery_pgbg.database.stopping import BROKEN_OFF, Stop, breaks_off, forget_cancel, stop_attempt
from celery_pgbg.database.sweeper import Sweeper, conclude
from celery_pgbg.database.values import from_exception
from celery_pgbg.database.watches import Entry, Watches, deliver
from celery_pgbg.errors import PgbgError, SessionLost
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Interruption, Order, Watch
from celery_pgbg.outcomes import Cancelled, Detached, Ending, Lost, Raised, Returned
from celery_pgbg.settings import Settings

logger = logging.getLogger(__name__)

#: Pauses between looks whether a cancelled worker is gone, in seconds.
_FIRST_LOOK, _LONGEST_LOOK = 0.002, 0.1

#: And at most, where the server refuses the cancel.
_LONGEST_REFUSED = 10.0

#: How long closing waits for each of its threads, in seconds.
_CLOSE_SECONDS = 5.0

#: After how long a call of a launcher looks as if it got no answer, in seconds. Most take milliseconds.
_LONG_CALL = 1.0


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
        self.launchers = [Launcher(self._opener("launcher")) for _ in range(settings.launchers)]
        self._next_launcher = itertools.count()
        self.watches = Watches()
        self.line = SlotLine()
        self.counts = Counts()
        self._listener = Listener(self._opener("listener"), self.watches, self.line.nudge_soon)
        self._sweeper = Sweeper(self.launchers, self.watches, settings)
        self._standalone: list[Watch] = []
        self._started = False
        self._lock = threading.Lock()
        self._closing = threading.Event()

    # --- its life ------------------------------------------------------------------------------

    def check(self) -> None:
        """Connect, and make sure that statements can be launched.

        Raises:
            ConfigurationError: something is missing in the server, told in the message.
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
        """What ``inspect stats`` shows of it: sessions, statements in flight, what became of the rest."""
        info = self._address
        return {
            "database": f"{info.get('host', '')}:{info.get('port', 5432)}/{info.get('dbname', '')}",
            "launcher_pids": [launcher.backend_pid for launcher in self.launchers],
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

        The same attempt that runs elsewhere already is waited for, one that has ended gives its
        outcome again. Interrupting the watch cancels the statement (or leaves it, for ``DETACH``).

        Raises:
            BindingError: the query and its arguments do not fit.
            ConfigurationError: extension, schema or privilege are missing, or the server refuses us.
        """
        try:
            ending = self._run_atomic(order, watch) if order.atomic else self._run_standalone(order, watch)
        except BaseException as exc:
            if not breaks_off(exc) or (told := self._break_off(order, watch)) is None:
                raise
            ending = told
        self.counts.add_ending(ending)
        self.line.nudge()
        return ending

    def _run_standalone(self, order: Order, watch: Watch) -> Ending:
        self._standalone.append(watch)
        try:
            return run_standalone(order, watch, self._opener("standalone"), self.line, self.counts)
        finally:
            self._standalone.remove(watch)

    def _run_atomic(self, order: Order, watch: Watch) -> Ending:
        entry = self.watches.add(watch)
        try:
            while True:
                interruption = self._launch(order, entry)
                if interruption is not None:
                    return Detached() if interruption is Interruption.DETACH else self._cancel(order, entry)
                ending = self._wait(order, entry)
                if isinstance(ending, Lost):
                    ending = self._with_hope(order, ending)
                    if entry.owner is None and not ending.hopeless:
                        # Another's worker died: this delivery may run it.
                        entry.watch.start_over()
                        continue
                return ending
        finally:
            self.watches.remove(entry)
            if entry.owner is not None and entry.handle is not None:
                with_outcome = watch.interruption is None and isinstance(watch.ending, (Returned, Raised))
                (entry.owner.release if with_outcome else entry.owner.detach)(entry.handle)

    def _with_hope(self, order: Order, lost: Lost) -> Lost:
        """Say whether the attempt may be launched again; what crashes the server must not do so for ever."""
        limit = self._settings.max_launches
        if limit is None:
            return lost
        try:
            launches = self.launchers[0].count_launches(order)
        except (psycopg.Error, PgbgError) as exc:
            logger.warning("%s: its launches cannot be counted: %s", order.attempt, exc)
            return lost
        if launches < limit:
            return lost
        return Lost(f"{lost.reason}; launched {launches} times (pgbg_max_launches)", hopeless=True)

    def stop(self, attempt: Attempt, application_name: str, message: str, may_run_again: bool = False) -> Stop:
        """Let an attempt end as cancelled that this process need not know, on a session of its own.

        If it ``may_run_again``, whoever launches it once it is stopped runs it.

        Raises:
            SessionLost: the server cannot be reached.
        """
        with self._opener("stop")() as session:
            stopped = stop_attempt(session, attempt, application_name, message)
            if may_run_again:
                forget_cancel(session, attempt, message)
            return stopped

    def _break_off(self, order: Order, watch: Watch) -> Ending | None:
        """Leave nothing behind; where the attempt had just ended, its outcome stands and is returned."""
        try:
            if self.stop(order.attempt, order.application_name, BROKEN_OFF) != "finished":
                return None
            for outcome in self.launchers[0].read_outcomes([order.attempt]):
                deliver(watch, outcome)
        except (PgbgError, psycopg.Error) as exc:
            logger.error("%s: its statement could not be stopped, and runs on: %s", order.attempt, exc)
        return watch.ending

    def _launch(self, order: Order, entry: Entry) -> Interruption | None:
        """Launch, waiting for a slot or for the server; returns what interrupted the wait, if anything did."""
        watch = entry.watch
        backoff = Backoff()
        try:
            while watch.interruption is None:
                if not self.line.join(watch):
                    self.line.wait(watch)
                    continue
                launcher = self._choose_launcher(order)
                try:
                    launch = launcher.launch(order)
                except (SessionLost, errors.SerializationFailure, errors.DeadlockDetected) as exc:
                    seconds = backoff.next()
                    logger.warning("%s cannot be launched, again in %.1f s: %s", order.attempt, seconds, exc)
                    watch.wait(seconds)
                    continue
                except psycopg.Error as exc:
                    watch.deliver(Raised(from_exception(exc)))
                    return None
                # Only now is it known that the server lets us. Who waits for a slot hears of others' ends as well.
                self._start()
                if launch.state != "full":
                    self._launched(launch, launcher, entry)
                    return None
                self.line.wait(watch)
        finally:
            self.line.leave(watch)
        return watch.interruption

    def _choose_launcher(self, order: Order) -> Launcher:
        """For an order that may reuse a background worker one that has such; else take turns among the least busy."""
        first = next(self._next_launcher) % len(self.launchers)
        in_turn = self.launchers[first:] + self.launchers[:first]
        with_idle = next((launcher for launcher in in_turn if order.reuse and launcher.has_idle), None)
        return with_idle or min(in_turn, key=_busyness)

    def _launched(self, launch: Launch, launcher: Launcher, entry: Entry) -> None:
        if launch.state == "finished":
            self.watches.deliver(launcher.read_outcomes([entry.watch.attempt]))
            return
        assert launch.handle is not None
        if launch.state == "launched":
            entry.owner = launcher
            self.counts.add("launched")
        else:
            logger.info("%s runs already, in background worker %d: attached", entry.watch.attempt, launch.handle.pid)
            self.counts.add("attached")
        entry.handle = launch.handle
        entry.watch.accept(launch.handle.pid, launch.handle.cookie)

    def _wait(self, order: Order, entry: Entry) -> Ending:
        while True:
            match entry.watch.wait():
                case None:
                    continue
                case Interruption.DETACH:
                    return Detached()
                case Interruption():
                    return self._cancel(order, entry)
                case ending:
                    return ending

    def _cancel(self, order: Order, entry: Entry) -> Ending:
        """Cancel, and wait until the worker is gone: then there is an outcome, or there never will be.

        Without a launch of ours it is that of an earlier delivery, if there is one. Where the server refuses
        the cancel, it is tried again as long as the statement runs.
        """
        pause = _FIRST_LOOK
        backoff = Backoff(_LONGEST_LOOK, _LONGEST_REFUSED)
        signalled = False
        while (ending := entry.watch.ending) is None:
            try:
                signalled = signalled or self._signal(entry)
                if self._is_gone(entry, signalled):
                    conclude(self._launcher_of(entry), entry)
                    continue
                pause = min(pause * 1.5, _LONGEST_LOOK)
            except (psycopg.Error, PgbgError) as exc:
                if entry.handle is None:
                    # We wait in line for a server that is away: who was to stop it shall not wait as well.
                    return Cancelled()
                signalled = False
                pause = backoff.next()
                logger.warning("cancelling %s: %s; again in %.1f s", entry.watch.attempt, exc, pause)
                if not isinstance(exc, SessionLost) and self._is_out_of_sight(order):
                    entry.watch.deliver(Lost(f"it is gone, and its outcome cannot be read: {exc}"))
            entry.watch.wait_for_end(pause)
        return ending

    def _is_out_of_sight(self, order: Order) -> bool:
        """Whether the worker is gone, asked where our schema or the extension is not usable."""
        try:
            return not self.launchers[0].shows(order.application_name)
        except (psycopg.Error, PgbgError):
            return False

    def _signal(self, entry: Entry) -> bool:
        if entry.owner is not None and entry.handle is not None and entry.owner.cancel(entry.handle):
            return True
        return self.launchers[0].terminate(entry.watch.attempt)

    def _is_gone(self, entry: Entry, was_seen: bool) -> bool:
        if entry.owner is not None and entry.handle is not None:
            state = entry.owner.states().get(entry.handle)
            if state is not None:
                return state == "stopped"
            entry.owner = None
        return entry.watch.attempt not in self.launchers[0].running([entry.watch.attempt], was_seen)

    def _launcher_of(self, entry: Entry) -> Launcher:
        return entry.owner or self.launchers[0]


def _busyness(launcher: Launcher) -> int:
    """0 for a launcher that is free, 1 for one in a call, 2 where that seems to get no answer."""
    seconds = launcher.seconds_in_call
    return (seconds > 0) + (seconds > _LONG_CALL)
