"""Runs an order whose statement and outcome are in one transaction: launch, wait, stop, and launch again if lost."""

from __future__ import annotations

import logging
import threading
import time

import psycopg
from psycopg import errors

from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.values import from_exception
from celery_pgbg.errors import PgbgError, SessionLost
from celery_pgbg.execution.control.stopping import end_holder_soon
from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.launching.launches import Launch
from celery_pgbg.execution.strategies.means import Means
from celery_pgbg.execution.waiting.sweeper import conclude
from celery_pgbg.execution.waiting.watches import Entry, deliver
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Cancelled, Detached, Ending, Lost, Raised
from celery_pgbg.watch import Interruption, Watch

logger = logging.getLogger(__name__)

#: Pauses between checks whether a cancelled background worker is gone, in seconds.
_FIRST_LOOK, _LONGEST_LOOK = 0.002, 0.1

#: The longest pause while the server refuses the cancel, in seconds.
_LONGEST_REFUSED = 10.0

#: How often a revoke is recorded, if the session is lost each time.
_TRIES = 3


#: The log's text if an earlier delivery's background worker has ended without an outcome.
SETTLING = "%s has just ended: waiting for its launching session to report how"

#: The reason for a lost attempt that this delivery did not launch.
ENDED_EARLIER = "its background worker ended without an outcome before this delivery"


class InTransaction:
    """Takes atomic orders to their ends, each in a background worker of its own.

    Args:
        means: the shared parts of a runner's strategies.
    """

    def __init__(self, means: Means) -> None:
        self.means = means

    def run(self, order: Order, watch: Watch) -> Ending:
        """Launch, wait, stop on demand, and launch again after a loss, if allowed."""
        entry = self.means.watches.add(watch, is_walk=order.walk is not None)
        backoff = Backoff()
        rescues: list[threading.Timer] = []

        def rescue(interruption: Interruption) -> None:
            """This thread may be blocked by the statement itself, and so miss the interruption."""
            # A shutdown may come in a signal's handler, which cannot start a thread.
            if interruption not in (Interruption.DETACH, Interruption.SHUTDOWN):
                opener = self.means.opener("stop")
                rescues.append(end_holder_soon(opener, order.attempt.task_id, [order.attempt.number]))

        watch.on_interrupt = rescue
        try:
            if watch.interruption is not None:
                rescue(watch.interruption)
            while True:
                interruption = self._launch(order, entry)
                if interruption is not None:
                    return Detached() if interruption is Interruption.DETACH else self._cancel(order, entry)
                ending = self._wait(order, entry)
                if self._leaves_a_walk(order, ending):
                    _start_over(entry)
                    watch.wait(backoff.next())
                    continue
                if isinstance(ending, Lost):
                    ending = self._with_hope(order, ending)
                    if entry.owner is None and not ending.hopeless:
                        # Another delivery's background worker died: this delivery may run the statement.
                        _start_over(entry)
                        continue
                return ending
        finally:
            for timer in rescues:
                timer.cancel()
            self.means.watches.remove(entry)
            self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        """Stop waiting for the background worker, which may run on."""
        _detach(entry)

    def _leaves_a_walk(self, order: Order, ending: Ending) -> bool:
        """Whether a lost background worker was on a walk that another one may continue after the last batch.

        A finished batch resets the count of launches.
        """
        if order.walk is None or not isinstance(ending, Lost) or self._with_hope(order, ending).hopeless:
            return False
        logger.warning("%s continues after its last batch: %s", order.attempt, ending.reason)
        return True

    def _with_hope(self, order: Order, lost: Lost) -> Lost:
        """Whether the attempt may be launched again; a statement that crashes the server must not do so for ever."""
        limit = self.means.settings.max_launches
        try:
            with self.means.launchers.first_free() as launcher:
                launches = launcher.count_launches(order)
        except (psycopg.Error, PgbgError) as exc:
            logger.warning("%s: its launches cannot be counted: %s", order.attempt, exc)
            return lost
        if limit is None or launches < limit:
            return lost
        return Lost(f"{lost.reason}; launched {launches} times (pgbg_max_launches)", hopeless=True)

    def _launch(self, order: Order, entry: Entry) -> Interruption | None:
        """Launch, after a wait for a slot or the server if needed; returns the interruption of that wait, if any."""
        watch = entry.watch
        backoff = Backoff()
        try:
            while watch.interruption is None:
                if not self.means.line.join(watch):
                    self.means.line.wait(watch)
                    continue
                try:
                    with self.means.launchers.least_busy() as launcher:
                        launch = launcher.launch(order, entry.sending)
                        if launch.state == "finished":
                            # Here, so that a loss of the session is no failure of the task.
                            self.means.watches.deliver(launcher.read_outcomes([order.attempt]))
                except (SessionLost, errors.SerializationFailure, errors.DeadlockDetected) as exc:
                    entry.may_run = entry.may_run and isinstance(exc, SessionLost)
                    seconds = backoff.next()
                    logger.warning("%s cannot be launched, trying again in %.1f s: %s", order.attempt, seconds, exc)
                    watch.wait(seconds)
                    continue
                except psycopg.Error as exc:
                    watch.deliver(Raised(from_exception(exc)))
                    return None
                # Only now is it known that the server accepts us. A wait for a slot needs the listener too.
                self.means.start()
                if launch.state == "finished" and watch.ending is None:
                    # Its outcome was a stop after which it may run again, and has been deleted since.
                    watch.wait(backoff.next())
                elif launch.state != "full":
                    self._launched(launch, launcher, entry)
                    return None
                else:
                    entry.may_run = False
                    self.means.line.wait(watch)
        finally:
            self.means.line.leave(watch)
        return watch.interruption

    def _launched(self, launch: Launch, launcher: Launcher, entry: Entry) -> None:
        if launch.state == "finished":
            return
        if launch.state == "worn out":
            entry.watch.deliver(Lost(ENDED_EARLIER))
            return
        assert launch.handle is not None
        is_ours = launch.state == "launched"
        entry.runs_in(launch.handle, launcher if is_ours else None)
        if launch.state == "settling":
            logger.info(SETTLING, entry.watch.attempt)
            return
        if is_ours:
            self.means.counts.add("launched")
        else:
            logger.info("%s runs already, in background worker %d: attached", entry.watch.attempt, launch.handle.pid)
            self.means.counts.add("attached")
        entry.watch.accept(launch.handle.pid)

    def _wait(self, order: Order, entry: Entry) -> Ending:
        while True:
            match entry.watch.wait():
                case None:
                    entry.watch.pass_progress_on()
                case Interruption.DETACH:
                    return Detached()
                case Interruption():
                    return self._cancel(order, entry)
                case ending:
                    return ending

    def _cancel(self, order: Order, entry: Entry) -> Ending:
        ending = self._signal_until_it_ends(order, entry)
        if not isinstance(ending, Cancelled):
            return ending
        if entry.watch.interruption is Interruption.REVOKE:
            return self._settle_revoke(entry.watch)
        self._forgive_launches(order)
        return ending

    def _signal_until_it_ends(self, order: Order, entry: Entry) -> Ending:
        """Cancel, and wait until the background worker is gone: then there is an outcome, or there never will be.

        If we have not launched, the background worker is an earlier delivery's, if there is one. If the server refuses
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
                if entry.handle is None and not entry.may_run:
                    # We wait for an unreachable server, and have sent it nothing: the revoke must not wait too.
                    return Cancelled()
                signalled = False
                pause = backoff.next()
                logger.warning("%s cannot be cancelled: %s; trying again in %.1f s", entry.watch.attempt, exc, pause)
                if not isinstance(exc, SessionLost) and self._is_out_of_sight(order):
                    entry.watch.deliver(Lost(f"its background worker is gone, and its outcome cannot be read: {exc}"))
            entry.watch.wait_for_end(pause)
        return ending

    def _settle_revoke(self, watch: Watch) -> Ending:
        """Prevent other deliveries from running it again: they may not know of the revoke yet.

        An outcome that has come since stands.
        """
        backoff = Backoff()
        for tries_left in reversed(range(_TRIES)):
            try:
                self._store_revoke(watch)
                break
            except (psycopg.Error, PgbgError) as exc:
                if not tries_left or not isinstance(exc, SessionLost):
                    logger.warning("%s: its revoke cannot be recorded: %s", watch.attempt, exc)
                    break
            time.sleep(backoff.next())
        return watch.ending or Cancelled()

    def _store_revoke(self, watch: Watch) -> None:
        with self.means.launchers.first_free() as launcher:
            if not launcher.settle_revoke(watch.attempt):
                watch.start_over()
                for outcome in launcher.read_outcomes([watch.attempt]):
                    deliver(watch, outcome)

    def _forgive_launches(self, order: Order) -> None:
        """Do not count the launch, because the message goes back.

        It is launched again at once, as often as there are deploys or time limits.
        """
        try:
            with self.means.launchers.first_free() as launcher:
                launcher.forgive_launches(order.attempt)
        except (psycopg.Error, PgbgError) as exc:
            logger.warning("%s: its launch cannot be forgiven, and counts as a lost one: %s", order.attempt, exc)

    def _is_out_of_sight(self, order: Order) -> bool:
        """Whether the background worker is gone, without our schema or the extension."""
        try:
            with self.means.launchers.first_free() as launcher:
                return not launcher.shows(order.attempt)
        except (psycopg.Error, PgbgError):
            return False

    def _signal(self, entry: Entry) -> bool:
        attempt = entry.watch.attempt
        if (held := entry.held) is not None:
            owner, handle = held
            if owner.cancel(attempt, handle):
                return True
        with self.means.launchers.first_free() as launcher:
            return launcher.terminate(attempt)

    def _is_gone(self, entry: Entry, was_seen: bool) -> bool:
        if (held := entry.held) is not None:
            owner, handle = held
            state = owner.states().get(handle)
            if state is not None:
                return state == "stopped"
            entry.disown()
        with self.means.launchers.first_free() as launcher:
            return not launcher.running([entry.watch.attempt], was_seen)

    def _launcher_of(self, entry: Entry) -> Launcher:
        return entry.owner or self.means.launchers.likely_free()


def _start_over(entry: Entry) -> None:
    """Forget an ended background worker, before another one is launched."""
    _detach(entry)
    entry.start_over()
    entry.watch.start_over()


def _detach(entry: Entry) -> None:
    if (held := entry.held) is not None:
        owner, handle = held
        owner.detach(handle)
