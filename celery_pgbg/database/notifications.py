"""Notifications of stored results and committed outcomes: one listening session for all waiting threads."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import psycopg

from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.greenlets import ADVICE, blocks_greenlets
from celery_pgbg.database.poolers import shares_sessions
from celery_pgbg.database.sessions import Session, stay_idle
from celery_pgbg.errors import PgbgError
from celery_pgbg.lasting import LastingThread
from celery_pgbg.texts import original

logger = logging.getLogger(__name__)

#: Channel of ``result_store.sql``; the payload is the task id, or empty if the id is too long.
RESULT_CHANNEL = "celery_pgbg_result"

#: Channel of ``run_v1``; the payload is the attempt's number, a space, the task id.
OUTCOME_CHANNEL = "celery_pgbg_outcome"

#: How long the thread may take to notice that it should end.
_LOOK_UP_SECONDS = 0.5

#: How long our own notification may take to come back before we decide that none will arrive.
_PROBE_SECONDS = 10.0

#: Pause before the next test whether notifications arrive.
_RETRY_SECONDS = 300.0


class Waiter:
    """One thread that waits for some tasks. After a wake-up it reads the results itself."""

    def __init__(self, task_ids: Iterable[str]) -> None:
        self.task_ids = frozenset(task_ids)
        self._condition = threading.Condition()
        self._rung: set[str] = set()

    def ring(self, task_ids: Iterable[str] | None = None) -> None:
        """Wake it for these tasks, or for all its tasks."""
        with self._condition:
            self._rung.update(self.task_ids if task_ids is None else task_ids)
            self._condition.notify()

    def wait(self, seconds: float) -> set[str]:
        """Wait for a wake-up, and return the ids of the notifications; no ids if the time has passed."""
        with self._condition:
            self._condition.wait_for(lambda: self._rung, seconds)
            rung, self._rung = self._rung, set()
            return rung


class Notifications:
    """Wakes waiters early; every waiter also polls from time to time.

    A pooler in transaction mode accepts LISTEN but delivers nothing. So we first check for a pooler, and rely on
    notifications only after one of our own, sent through another session, has arrived.

    Args:
        open_session: makes a connected session in autocommit mode.
        send: sends a notification through any other session; takes a channel and a payload.
        enabled: False never listens.
    """

    def __init__(
        self, open_session: Callable[[], Session], send: Callable[[str, str], None], enabled: bool = True
    ) -> None:
        self._open_session = open_session
        self._send = send
        self._enabled = enabled
        self._waiters: dict[str, list[Waiter]] = {}
        self._lock = threading.Lock()
        self._thread: LastingThread | None = None
        self._stopping = threading.Event()
        self._warned = False
        #: Whether notifications arrive now, as far as known.
        self.working = False

    @contextmanager
    def waiter(self, task_ids: Iterable[str]) -> Iterator[Waiter]:
        """Register a waiter. The first one starts the listening thread."""
        waiter = Waiter(task_ids)
        with self._lock:
            for task_id in waiter.task_ids:
                self._waiters.setdefault(task_id, []).append(waiter)
            self._start()
        try:
            yield waiter
        finally:
            with self._lock:
                for task_id in waiter.task_ids:
                    self._waiters[task_id].remove(waiter)
                    if not self._waiters[task_id]:
                        del self._waiters[task_id]

    def close(self) -> None:
        """End the thread and its session."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.stop()
            thread.join(5)

    # --- in the listening thread -----------------------------------------------------------------

    def _start(self) -> None:
        if self._enabled and self._thread is None and blocks_greenlets():
            # The listening thread would be a greenlet that never lets another one run.
            self._enabled = False
            logger.warning("polling for results, because %s", ADVICE)
        if self._enabled and self._thread is None and not self._stopping.is_set():
            self._thread = LastingThread("pgbg-results", self._run)
            self._thread.start()

    def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            pause = _RETRY_SECONDS
            try:
                with self._open_session() as session:
                    self._listen(session, backoff)
            except (psycopg.Error, PgbgError) as exc:
                pause = backoff.next()
                if not self._stopping.is_set():
                    logger.warning("notifications of results do not arrive, polling for results meanwhile: %s", exc)
            finally:
                self.working = False
                self._ring_all()
            self._stopping.wait(pause)

    def _listen(self, session: Session, backoff: Backoff) -> None:
        """Listen until the thread is to stop; returns early if notifications do not arrive."""
        if shares_sessions(session, self._open_session):
            self._warn_once()
            return
        stay_idle(session)
        session.execute(f"LISTEN {RESULT_CHANNEL}")
        session.execute(f"LISTEN {OUTCOME_CHANNEL}")
        probe = f"probe {uuid.uuid4()}"
        self._send(RESULT_CHANNEL, probe)
        deadline = time.monotonic() + _PROBE_SECONDS
        while not self._stopping.is_set() and (self.working or time.monotonic() < deadline):
            # Read all of them before any work: an error in between would leave the session unusable.
            for note in list(session.notifies(timeout=_LOOK_UP_SECONDS, stop_after=1)):
                if note.payload == probe:
                    self.working = True
                    backoff.reset()
                    self._ring_all()
                else:
                    self._ring(_task_id(note))
        if not self.working and not self._stopping.is_set():
            session.execute("UNLISTEN *")
            self._warn_once()

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "notifications do not arrive, as behind a pooler in transaction mode: polling for results; "
                "if that is intended, add ?notify=false to the result backend's URL"
            )

    def _ring(self, task_id: str) -> None:
        if not task_id:
            self._ring_all()
            return
        with self._lock:
            waiters = list(self._waiters.get(task_id, ()))
        for waiter in waiters:
            waiter.ring((task_id,))

    def _ring_all(self) -> None:
        with self._lock:
            waiters = {id(waiter): waiter for waiters in self._waiters.values() for waiter in waiters}
        for waiter in waiters.values():
            waiter.ring()


def _task_id(note: psycopg.Notify) -> str:
    return original(note.payload.partition(" ")[2] if note.channel == OUTCOME_CHANNEL else note.payload)
