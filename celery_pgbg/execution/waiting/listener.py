"""The listener: one session that NOTIFY wakes for each committed outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable

import psycopg

from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.notifications import OUTCOME_CHANNEL
from celery_pgbg.database.sessions import Session, plan_once, stay_idle
from celery_pgbg.errors import PgbgError
from celery_pgbg.execution.records.attempts import read_outcomes
from celery_pgbg.execution.waiting.watches import Watches
from celery_pgbg.handles import Attempt
from celery_pgbg.lasting import LastingThread

logger = logging.getLogger(__name__)

#: How long a stop may have to wait for the thread to look up.
_LOOK_UP_SECONDS = 0.25


#: With so many waiting threads, outcomes are collected for some milliseconds and read together, in seconds.
_MANY, _GATHERING = 8, 0.005


class Listener(LastingThread):
    """A thread that turns notifications into ends of watches.

    The sweeper finds ends that the listener misses while its session is down.

    Args:
        open_session: makes a connected session in autocommit mode.
        watches: what is waited for.
        on_any: called after each outcome, also of other Celery workers.
    """

    def __init__(self, open_session: Callable[[], Session], watches: Watches, on_any: Callable[[], None]) -> None:
        super().__init__("pgbg-listener", self._connect_and_listen)
        self._open_session = open_session
        self._watches = watches
        self._on_any = on_any
        self.backend_pid: int | None = None

    def _connect_and_listen(self) -> None:
        """Listen, and connect again after a loss."""
        backoff = Backoff()
        while not self.stopping.is_set():
            try:
                with self._open_session() as session:
                    self._listen(session, backoff)
            except (psycopg.Error, PgbgError) as exc:
                logger.warning("the listening session is lost, polling for outcomes meanwhile: %s", exc)
                self.stopping.wait(backoff.next())
            finally:
                self.backend_pid = None

    def _listen(self, session: Session, backoff: Backoff) -> None:
        stay_idle(session)
        plan_once(session)
        session.execute(f"LISTEN {OUTCOME_CHANNEL}")
        self.backend_pid = session.info.backend_pid
        backoff.reset()
        self._watches.deliver(read_outcomes(session, self._watches.attempts()))
        while not self.stopping.is_set():
            # All of them before anything is done: an error meanwhile would leave the session in the middle.
            notes = list(session.notifies(timeout=_LOOK_UP_SECONDS, stop_after=1))
            if notes and len(self._watches) >= _MANY:
                notes += session.notifies(timeout=_GATHERING)
            notified = [attempt_of(note.payload) for note in notes]
            wanted = [attempt for attempt in notified if self._watches.of(attempt)]
            if wanted:
                self._watches.deliver(read_outcomes(session, wanted))
            if notified:
                self._on_any()


def attempt_of(payload: str) -> Attempt:
    """Read a notification; any role may have sent it."""
    number, _, task_id = payload.partition(" ")
    return Attempt(task_id, int(number) if number.isascii() and number.isdecimal() and len(number) <= 10 else 0)
