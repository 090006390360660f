"""The sweeper: slow periodic checks for ends without a notification, and for progress."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import psycopg

from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.values import StoredOutcome, had_begun
from celery_pgbg.errors import PgbgError, SessionLost
from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.launching.walks import is_passing
from celery_pgbg.execution.records.expiry import Expiry
from celery_pgbg.execution.waiting.progress_sweep import sweep_progress
from celery_pgbg.execution.waiting.watches import Entry, Watches, deliver
from celery_pgbg.handles import Handle
from celery_pgbg.lasting import LastingThread
from celery_pgbg.outcomes import ENDED, UNSEEN, Cancelled, Ending, Lost, Raised
from celery_pgbg.settings import Settings
from celery_pgbg.watch import Interruption

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_DELETES = 600.0

#: Number of sweeps between two checks for lost statements with ``atomic=False``.
_SWEEPS_BETWEEN_SETTLING = 6

#: Number of records deleted in one call on a launching session; launches wait for that call.
_DELETED_AT_ONCE = 1000

#: Sweeps in which a delivery that has ended another's background worker stores why.
_SWEEPS_FOR_ANOTHER = 2

_DEADLOCK = "40P01"


class Sweeper(LastingThread):
    """A thread that finds background workers that stopped without an outcome: a failed commit, a cancel, a crash.

    It also reads outcomes whose notification was missed (or all outcomes, without NOTIFY), records progress, detaches
    unneeded handles, and deletes expired records.

    Args:
        launchers: the sessions with the handles.
        choose: returns a launcher that is likely free, for calls that every launcher answers.
        watches: what is waited for.
        settings: ``sweep_interval``, ``poll_interval``, ``notify``, ``outcome_expires``.
    """

    def __init__(
        self, launchers: list[Launcher], choose: Callable[[], Launcher], watches: Watches, settings: Settings
    ) -> None:
        super().__init__("pgbg-sweeper", self._sweep_at_intervals)
        self._launchers = launchers
        self._choose = choose
        self._watches = watches
        self._settings = settings
        self._wake = threading.Event()
        self._last_sweep = self._last_delete = 0.0
        self._sweeps = 0
        self._expiry: Expiry | None = None

    def stop(self) -> None:
        """End the thread; does not wait for it."""
        super().stop()
        self._wake.set()

    def _sweep_at_intervals(self) -> None:
        """Sweep at the interval, less often while the server does not answer."""
        backoff = Backoff(self._settings.sweep_interval)
        interval = self._settings.sweep_interval if self._settings.notify else self._settings.poll_interval
        pause = interval
        while not self.stopping.is_set():
            self._wake.wait(pause)
            pause = interval
            try:
                self._round()
                backoff.reset()
            except (psycopg.Error, PgbgError) as exc:
                if self.stopping.is_set():
                    return
                logger.warning("sweep failed, trying again: %s", exc)
                pause = backoff.next()

    def _round(self) -> None:
        now = time.monotonic()
        attempts = self._watches.attempts()
        if attempts:
            self._watches.deliver(self._choose().read_outcomes(attempts))
        if now - self._last_sweep < self._settings.sweep_interval:
            return
        self._last_sweep = now
        for launcher in self._launchers:
            # A stalled call must not hold up the ends that other launchers know.
            if not launcher.is_stalled:
                self._sweep(launcher)
        self._sweep_attached()
        self._settle_lost()
        sweep_progress(self._choose(), [entry for entry in self._watches.entries() if entry.handle])
        self._delete_expired(now)

    def _delete_expired(self, now: float) -> None:
        """Delete a batch, and if there are more, another one in the next round: so launches do not wait long."""
        expires = self._settings.outcome_expires
        if self._expiry is None and expires is not None and now - self._last_delete > _SECONDS_BETWEEN_DELETES:
            self._last_delete = now
            self._expiry = Expiry(expires, _DELETED_AT_ONCE)
        expiry, self._expiry = self._expiry, None
        if expiry is not None and self._choose().delete_expired(expiry):
            self._expiry = expiry

    def _settle_lost(self) -> None:
        """Settle lost statements with ``atomic=False``, whichever Celery worker launched them."""
        if self._sweeps % _SWEEPS_BETWEEN_SETTLING == 0:
            for attempt in self._choose().settle_lost():
                logger.warning("%s: %s; no Celery worker waited for the task any more", attempt, UNSEEN)
        self._sweeps += 1

    def _sweep(self, launcher: Launcher) -> None:
        held = [(entry, entry.held) for entry in self._watches.entries()]
        entries = {of[1]: entry for entry, of in held if of is not None and of[0] is launcher}
        if entries or launcher.backend_pid is not None:
            launcher.flush()
        if not entries:
            return
        states = launcher.states()
        running: dict[Handle, Entry] = {}
        for handle, entry in entries.items():
            match states.get(handle):
                case "running":
                    running[handle] = entry
                case "stopped":
                    _conclude_or_log(launcher, entry)
                case None:
                    # The launching session was lost, not the background worker: watch it like another session's.
                    entry.disown()
        self._unblock(launcher, running)

    def _unblock(self, launcher: Launcher, entries: dict[Handle, Entry]) -> None:
        """Give up the handles of background workers with a full queue: watch them like another session's."""
        for handle in launcher.blocked(list(entries)):
            entry = entries[handle]
            logger.warning(
                "%s: its queue for messages such as INFO is full, so messages are dropped", entry.watch.attempt
            )
            _give_up(entry, launcher, handle)

    def _sweep_attached(self) -> None:
        """Find the ends of background workers that other sessions launched."""
        attached = [entry for entry in self._watches.entries() if entry.owner is None and entry.handle]
        if not attached:
            return
        launcher = self._choose()
        running = launcher.running([entry.watch.attempt for entry in attached])
        for entry in attached:
            entry.absences = 0 if entry.watch.attempt in running else entry.absences + 1
            # The launching session may know an error that is not an outcome yet: it goes first.
            if entry.absences > 1:
                _conclude_or_log(launcher, entry)


def _conclude_or_log(launcher: Launcher, entry: Entry) -> None:
    """Conclude one entry; its failure must not stop the check of the others."""
    try:
        conclude(launcher, entry)
    except SessionLost:
        raise
    except Exception:
        logger.exception("%s: its end cannot be read, trying again", entry.watch.attempt)


def conclude(launcher: Launcher, entry: Entry) -> None:
    """Deliver the end of a stopped background worker to its watch: the outcome, else the error, else lost.

    Nothing is delivered yet if another delivery has ended it.
    """
    watch = entry.watch
    outcomes: list[StoredOutcome] = launcher.read_outcomes([watch.attempt])
    if outcomes:
        deliver(watch, outcomes[0])
    elif watch.interruption not in (None, Interruption.DETACH):
        watch.deliver(Cancelled())
    elif (held := entry.held) is None:
        watch.deliver(Lost("its background worker ended without an outcome"))
    else:
        owner, handle = held
        if owner.was_terminated(watch.attempt, handle):
            _conclude_after_another(entry, owner, handle)
            return
        ending = _from_error(owner, handle)
        if isinstance(ending, Raised) and ending.report.sqlstate == _DEADLOCK:
            # An error in the statement would be the outcome. This error came while the outcome was written: everything
            # is rolled back, and the attempt may be launched again, as after a crash.
            _give_up(entry, owner, handle)
            ending = Lost(f"its outcome could not be written: {ending.report.message}")
        elif isinstance(ending, Raised) and entry.is_walk and is_passing(ending.report):
            # Another background worker continues after the last batch.
            ending = Lost(f"its background worker ended: {ending.report.message}")
        elif isinstance(ending, Raised):
            # Otherwise other deliveries would run it again. An outcome that has come since the check above stands.
            launcher.store_error(watch.attempt, ending.report)
            for outcome in launcher.read_outcomes([watch.attempt]):
                deliver(watch, outcome)
        watch.deliver(ending)


def _give_up(entry: Entry, owner: Launcher, handle: Handle) -> None:
    """Give up a handle: its background worker is watched like another session's."""
    entry.disown()
    owner.detach(handle)


def _conclude_after_another(entry: Entry, owner: Launcher, handle: Handle) -> None:
    """Another delivery ended the background worker, and knows why: it stores a revoke or launches the attempt again.

    If it has done neither after some sweeps, the attempt is lost.
    """
    watch = entry.watch
    if owner.running([watch.attempt], was_seen=True):
        _give_up(entry, owner, handle)
        return
    entry.unexplained_sweeps += 1
    if entry.unexplained_sweeps > _SWEEPS_FOR_ANOTHER:
        report = owner.error_of(handle)
        why = report.message if report else "no error"
        watch.deliver(Lost(f"another session of ours ended its background worker: {why}"))


def _from_error(owner: Launcher, handle: Handle) -> Ending:
    """The background worker's error is the statement's error; if the statement had not begun, the attempt is lost."""
    report = owner.error_of(handle)
    if report is None:
        return Lost("its background worker ended without an outcome or an error")
    if report.sqlstate in ENDED and not had_begun(report):
        return Lost(f"its background worker was ended from outside: {report.message}")
    return Raised(report)
