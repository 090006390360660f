"""The listener: one session that is told by NOTIFY of each outcome that commits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import psycopg

from celery_pgbg.database.attempts import read_outcomes
from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.sessions import Session
from celery_pgbg.database.watches import Watches
from celery_pgbg.errors import PgbgError
from celery_pgbg.handles import Attempt

logger = logging.getLogger(__name__)

#: The channel that ``run_v1`` notifies; the payload is the attempt's number, a space, the task id.
CHANNEL = "celery_pgbg_outcome"

#: How long a stop may have to wait for the thread to look up.
_LOOK_UP_SECONDS = 0.25


class Listener(threading.Thread):
    """A thread that turns notifications into ends of watches.

    It only hurries: what it misses while its session is down, the sweeper finds.

    Args:
        open_session: makes a connected session in autocommit mode.
        watches: what is waited for.
        on_any: called after each outcome, also those of others.
    """

    def __init__(self, open_session: Callable[[], Session], watches: Watches, on_any: Callable[[], None]) -> None:
        super().__init__(name="pgbg-listener", daemon=True)
        self._open_session = open_session
        self._watches = watches
        self._on_any = on_any
        self._stopping = threading.Event()
        self.backend_pid: int | None = None

    def stop(self) -> None:
        """End the thread; does not wait for it."""
        self._stopping.set()

    def run(self) -> None:
        """Listen, and connect again after a loss."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                with self._open_session() as session:
                    self._listen(session, backoff)
            except (psycopg.Error, PgbgError) as exc:
                self.backend_pid = None
                logger.warning("listening session lost, outcomes are polled for meanwhile: %s", exc)
                self._stopping.wait(backoff.next())
            except Exception:
                # All others depend on this thread.
                self.backend_pid = None
                logger.exception("listening failed, will try again")
                self._stopping.wait(backoff.next())

    def _listen(self, session: Session, backoff: Backoff) -> None:
        session.execute(f"LISTEN {CHANNEL}")
        self.backend_pid = session.info.backend_pid
        backoff.reset()
        self._watches.deliver(read_outcomes(session, self._watches.attempts()))
        while not self._stopping.is_set():
            told = [_attempt(note.payload) for note in session.notifies(timeout=_LOOK_UP_SECONDS, stop_after=1)]
            wanted = [attempt for attempt in told if self._watches.of(attempt)]
            if wanted:
                self._watches.deliver(read_outcomes(session, wanted))
            if told:
                self._on_any()


def _attempt(payload: str) -> Attempt:
    number, _, task_id = payload.partition(" ")
    return Attempt(task_id, int(number) if number.isdigit() else 0)
