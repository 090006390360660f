"""The sweeper: a slow look for what no notification tells, and for progress."""

from __future__ import annotations

import logging
import threading
import time

import psycopg

from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.launcher import Launcher
from celery_pgbg.database.values import StoredOutcome
from celery_pgbg.database.watches import Entry, Watches, deliver
from celery_pgbg.errors import PgbgError
from celery_pgbg.handles import Handle
from celery_pgbg.orders import Interruption
from celery_pgbg.outcomes import Cancelled, Ending, ErrorReport, Lost, Raised
from celery_pgbg.settings import Settings

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_DELETES = 600.0

#: SQLSTATEs of a worker that was ended from outside: shutdown, crash, lost connection.
_ENDED_FROM_OUTSIDE = ("57P01", "57P02", "57P03", "57P05", "08006", "08003")


class Sweeper(threading.Thread):
    """A thread that finds workers that stopped without an outcome: a failed commit, a cancel, a crash.

    It also reads outcomes whose notification was missed (or all of them, where NOTIFY is off),
    puts progress on record, detaches handles that are done with, and deletes what has expired.

    Args:
        launchers: the sessions whose handles it looks after.
        watches: what is waited for.
        settings: ``sweep_interval``, ``poll_interval``, ``notify``, ``outcome_expires``.
    """

    def __init__(self, launchers: list[Launcher], watches: Watches, settings: Settings) -> None:
        super().__init__(name="pgbg-sweeper", daemon=True)
        self._launchers = launchers
        self._watches = watches
        self._settings = settings
        self._wake = threading.Event()
        self._stopping = False
        self._last_sweep = self._last_delete = 0.0

    def stop(self) -> None:
        """End the thread; does not wait for it."""
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        """Sweep at the interval, slower while the server does not answer."""
        backoff = Backoff(self._settings.sweep_interval)
        interval = self._settings.sweep_interval if self._settings.notify else self._settings.poll_interval
        pause = interval
        while not self._stopping:
            self._wake.wait(pause)
            pause = interval
            try:
                self._round()
                backoff.reset()
            except (psycopg.Error, PgbgError) as exc:
                if self._stopping:
                    return
                logger.warning("sweep failed, will try again: %s", exc)
                pause = backoff.next()
            except Exception:
                # All others depend on this thread.
                logger.exception("sweep failed, will try again")
                pause = backoff.next()

    def _round(self) -> None:
        now = time.monotonic()
        attempts = self._watches.attempts()
        if attempts:
            self._watches.deliver(self._launchers[0].read_outcomes(attempts))
        if now - self._last_sweep < self._settings.sweep_interval:
            return
        self._last_sweep = now
        for launcher in self._launchers:
            self._sweep(launcher)
        self._sweep_attached()
        expires = self._settings.outcome_expires
        if expires is not None and now - self._last_delete > _SECONDS_BETWEEN_DELETES:
            self._last_delete = now
            self._launchers[0].delete_expired(expires)

    def _sweep(self, launcher: Launcher) -> None:
        entries = [entry for entry in self._watches.entries() if entry.owner is launcher and entry.handle]
        launcher.flush()
        if not entries:
            return
        states = launcher.states()
        running: dict[Handle, Entry] = {}
        for entry in entries:
            assert entry.handle is not None
            match states.get(entry.handle):
                case "running":
                    running[entry.handle] = entry
                case "stopped":
                    conclude(launcher, entry)
                case None:
                    # That launching session was lost, not the worker: it is watched like another's.
                    entry.owner = None
        self._sweep_progress(launcher, running)
        self._unblock(launcher, running)

    def _sweep_progress(self, launcher: Launcher, entries: dict[Handle, Entry]) -> None:
        progress = launcher.progress(list(entries))
        fresh = {handle: told for handle, told in progress.items() if entries[handle].watch.progress != told}
        for handle, told in fresh.items():
            entries[handle].watch.progress = told
        if fresh:
            launcher.publish_progress(fresh)

    def _unblock(self, launcher: Launcher, entries: dict[Handle, Entry]) -> None:
        """Give up the handles of workers that have more to tell than fits: they are watched like another's."""
        for handle in launcher.blocked(list(entries)):
            entry = entries[handle]
            logger.warning("%s waits for its messages, such as INFO, to be read: they are dropped", entry.watch.attempt)
            entry.owner = None
            launcher.detach(handle)

    def _sweep_attached(self) -> None:
        """Find the ends of workers that other sessions launched."""
        attached = [entry for entry in self._watches.entries() if entry.owner is None and entry.handle]
        if not attached:
            return
        launcher = self._launchers[0]
        running = launcher.running([entry.watch.attempt for entry in attached])
        for entry in attached:
            if entry.watch.attempt not in running:
                conclude(launcher, entry)


def conclude(launcher: Launcher, entry: Entry) -> None:
    """Tell a watch how its stopped worker ended: by its outcome, else by its error, else lost."""
    watch = entry.watch
    outcomes: list[StoredOutcome] = launcher.read_outcomes([watch.attempt])
    if outcomes:
        deliver(watch, outcomes[0])
    elif watch.interruption not in (None, Interruption.DETACH):
        watch.deliver(Cancelled())
    elif entry.owner is None or entry.handle is None:
        watch.deliver(Lost("its background worker ended without an outcome"))
    else:
        watch.deliver(_from_error(entry.owner.error_of(entry.handle)))


def _from_error(report: ErrorReport | None) -> Ending:
    if report is None:
        return Lost("its background worker ended without an outcome or an error")
    # A time limit of PostgreSQL and a cancel by hand share 57014; only the message tells.
    by_hand = report.sqlstate == "57014" and "user request" in report.message
    if by_hand or report.sqlstate in _ENDED_FROM_OUTSIDE:
        return Lost(f"its background worker was ended from outside: {report.message}")
    return Raised(report)
