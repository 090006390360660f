"""Runs an order in a reusable background worker."""

from __future__ import annotations

import logging
import time

import psycopg

from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.values import from_exception
from celery_pgbg.errors import ConfigurationError, PgbgError, SessionLost
from celery_pgbg.execution.strategies.in_transaction import InTransaction
from celery_pgbg.execution.strategies.means import Means
from celery_pgbg.execution.strategies.placing import Placing
from celery_pgbg.execution.strategies.reuse import PASSING, Placer
from celery_pgbg.execution.waiting.watches import Entry
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Detached, Ending, Raised
from celery_pgbg.watch import Interruption

logger = logging.getLogger(__name__)

#: Pause between checks whether another thread has sent an order, in seconds.
_PAUSE = 0.005


class ReusedWorker(InTransaction):
    """A background worker that runs one order after another."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._placer = Placer(means)

    def _let_go(self, entry: Entry) -> None:
        """Its background worker continues with other orders."""

    def _launch(self, order: Order, entry: Entry) -> Interruption | None:
        entry.start_over()
        entry.may_run = False
        return entry.watch.interruption

    def _wait(self, order: Order, entry: Entry) -> Ending:
        """Place the order, and wait; its background worker may be known only at its end."""
        watch = entry.watch
        placing = self._placer.put(order, entry)
        backoff = Backoff()
        try:
            self._placer.send()
            while True:
                match watch.wait(placing.wait_seconds()):
                    case None:
                        watch.pass_progress_on()
                        self._go_on(placing, backoff)
                    case Interruption() as interruption:
                        self._take_back(placing)
                        return Detached() if interruption is Interruption.DETACH else self._cancel(order, entry)
                    case ending:
                        if watch.pid is None and watch.ended_in:
                            watch.accept(watch.ended_in)
                        return ending
        finally:
            self._placer.forget(placing)
            self.means.line.leave(watch)

    def _take_back(self, placing: Placing) -> None:
        """Wait until no other thread sends it: then it is placed, or never will be."""
        while not self._placer.withdraw(placing) and placing.state == "sent":
            time.sleep(_PAUSE)

    def _signal(self, entry: Entry) -> bool:
        """Stop it through its row: the background worker of the handle may already run another order."""
        with self.means.launchers.first_free() as launcher:
            return launcher.terminate(entry.watch.attempt)

    def _go_on(self, placing: Placing, backoff: Backoff) -> None:
        """The work of a waiting thread that wakes without an end, or whose time is over."""
        watch = placing.entry.watch
        if placing.error is not None:
            self._try_again(placing, backoff)
        self._placer.send()
        handle = placing.entry.handle
        if handle is not None and handle.pid and watch.pid is None:
            watch.accept(handle.pid)
        try:
            self._placer.look(placing)
            if placing.wants_worker:
                self._stand_in_line(placing)
            else:
                self.means.line.leave(watch)
        except (psycopg.Error, PgbgError) as exc:
            seconds = backoff.next()
            placing.next_look = time.monotonic() + seconds
            logger.warning(
                "%s: the state of its order cannot be read, trying again in %.1f s: %s", watch.attempt, seconds, exc
            )

    def _try_again(self, placing: Placing, backoff: Backoff) -> None:
        """Queue an order again that could not be sent, or fail.

        Raises:
            Exception: an error of the order itself, or of the configuration.
        """
        error, placing.error = placing.error, None
        watch = placing.entry.watch
        if isinstance(error, PASSING):
            seconds = backoff.next()
            logger.warning("%s cannot be launched, trying again in %.1f s: %s", watch.attempt, seconds, error)
            watch.wait(seconds)
            if watch.interruption is None and watch.ending is None:
                self._placer.again(placing)
        elif error is not None:
            if placing.entry.may_run:
                # It was placed, but no background worker could be launched.
                try:
                    with self.means.launchers.first_free() as launcher:
                        launcher.terminate(watch.attempt)
                except SessionLost as exc:
                    logger.warning("%s: its order cannot be taken back: %s", watch.attempt, exc)
            if not isinstance(error, psycopg.Error):
                raise error
            watch.deliver(Raised(from_exception(error)))

    def _stand_in_line(self, placing: Placing) -> None:
        """Launch another background worker when it is our turn; an existing one may take the order before."""
        line, watch = self.means.line, placing.entry.watch
        try:
            is_launched = line.join(watch) and self._placer.launch(placing.pool)
        except PASSING:
            raise
        except (psycopg.Error, ConfigurationError) as exc:
            placing.error = exc
            return
        if is_launched:
            placing.wants_worker = False
            line.leave(watch)
        else:
            line.wait(watch)
