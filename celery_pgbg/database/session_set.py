"""A few sessions, shared by all threads of a process, for calls of one statement each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from celery_pgbg.database.sessions import Session, has_ended, is_dead
from celery_pgbg.errors import SessionLost

T = TypeVar("T")


class SessionSet:
    """Lends sessions, opening one only when all others are in use.

    Args:
        open_session: makes a connected session in autocommit mode.
        limit: the largest number of sessions; a thread waits while all are in use.
    """

    def __init__(self, open_session: Callable[[], Session], limit: int = 4) -> None:
        self._open_session = open_session
        # Not a semaphore: under gevent, one whose waiter is killed at the wrong moment may never be free again.
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(limit):
            self._turns.put(None)
        self._idle: list[Session] = []
        self._lock = threading.Lock()
        self._closed = False

    def run(self, work: Callable[[Session], T], is_repeatable: bool = True) -> T:
        """Do work on a session; if the session had died since its last use, do it on a new session.

        Args:
            work: what to do.
            is_repeatable: whether the work may be done once more if a kept session dies during it. The first try may
                have been committed.

        Raises:
            SessionLost: the server cannot be reached, or the connection died during the work.
            ServerRefused: the server refuses us for good.
        """
        with self._turn():
            kept = self._take_idle() if is_repeatable else self._take_living()
            if kept is not None:
                try:
                    return self._work(kept, work)
                except SessionLost:
                    self._close_idle()
                    if not is_repeatable:
                        raise
            return self._work(self._open(), work)

    def _open(self) -> Session:
        try:
            return self._open_session()
        except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
            raise SessionLost(f"the connection was lost as it was opened: {str(exc).strip()}") from exc

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self._turns.get()
        try:
            yield
        finally:
            self._turns.put(None)

    def close(self) -> None:
        """Close the sessions; sessions in use are closed when they come back."""
        self._closed = True
        self._close_idle()

    def _work(self, session: Session, work: Callable[[Session], T]) -> T:
        with self._returned(session):
            try:
                return work(session)
            except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                if is_dead(session):
                    raise SessionLost(f"the connection was lost: {str(exc).strip()}") from exc
                raise

    @contextmanager
    def _returned(self, session: Session) -> Iterator[None]:
        """Keep the session for the next call, unless a call was interrupted."""
        try:
            yield
        finally:
            if self._closed or is_dead(session) or session.info.transaction_status is not TransactionStatus.IDLE:
                session.close()
            else:
                with self._lock:
                    self._idle.append(session)

    def _take_idle(self) -> Session | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _take_living(self) -> Session | None:
        """Take an idle session that has not ended, as far as known."""
        while (session := self._take_idle()) is not None and has_ended(session):
            session.close()
        return session

    def _close_idle(self) -> None:
        """Close the idle sessions: if one session has died, mostly all have."""
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
