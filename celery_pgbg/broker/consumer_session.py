"""The session of a consumer: its record, its lock or lease that shows that it lives, its notifications."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction

from celery_pgbg.broker.queries import query
from celery_pgbg.broker.waiting import Waiting
from celery_pgbg.database import poolers, queries, schema
from celery_pgbg.database.sessions import Session, is_dead
from celery_pgbg.errors import SessionLost
from celery_pgbg.orders import Identity

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The lease, if no lock is possible: how long taken messages are ours without a renewal, in seconds.
LEASE_SECONDS = 60.0

#: The server is not the primary, or no longer; another connection may lead to the primary.
READ_ONLY = "the server accepts no writes"

_NO_LOCK = (
    "the broker's connection goes through a pooler in transaction mode: this process polls for messages, and loses the "
    "messages that it has taken if its event loop stops for %g s; point the broker's URL to the server itself, or to a "
    "pool in session mode"
)


class ConsumerSession:
    """Executes a consumer's statements, one at a time. Any thread may call it.

    Every call raises ``SessionLost`` once the session is over.

    Args:
        open_session: makes a connected session.
        name: the name that other sessions see.
        wants_notifications: whether to listen, unless a pooler prevents it.
        earlier: the id of the lost consumer before this one, if any.

    Attributes:
        id: among all consumers.
        listens: whether it gets notifications.
        lease_ms: the lease of its messages in milliseconds, if no lock shows that it lives; else None.
        lost: why the session is over; None while it lives.
        waiting: its lock, and the threads that wait for messages.
    """

    def __init__(
        self, open_session: Callable[[], Session], name: str, wants_notifications: bool, earlier: int | None
    ) -> None:
        self.lost: str | None = None
        self.lease_ms: int | None = None
        self._identity: Identity | None = None
        self.waiting = Waiting()
        try:
            self._session = open_session()
            try:
                self._register(open_session, name, earlier)
            except ReadOnlySqlTransaction as exc:
                self._session.close()
                raise SessionLost(f"{READ_ONLY}: {exc}") from exc
            except InsufficientPrivilege as exc:
                with closing(self._session):
                    schema.check_rights(self._session, exc, "take messages or wait for replies")
                raise
            except BaseException:
                self._session.close()
                raise
        except BaseException:
            self.waiting.close()
            raise
        self.listens = wants_notifications and self.lease_ms is None

    def _register(self, open_session: Callable[[], Session], name: str, earlier: int | None) -> None:
        session = self._session
        schema.check_installed(session)
        if poolers.shares_sessions(session, open_session):
            session.prepare_threshold = None
            self.lease_ms = round(LEASE_SECONDS * 1000)
            logger.warning(_NO_LOCK, LEASE_SECONDS)
        parameters = {"name": name, "lease_ms": self.lease_ms, "earlier": earlier}
        row = session.execute(query("register_consumer"), parameters).fetchone()
        assert row is not None
        self.id: int = row[0]

    @property
    def identity(self) -> Identity:
        """The database of its messages."""
        if self._identity is None:
            row = self.run(lambda session: session.execute(queries.query("database_identity")).fetchone())
            assert row is not None
            self._identity = row[0], row[1]
        return self._identity

    def fileno(self) -> int:
        """The socket that becomes readable when we are notified."""
        return self._session.fileno()

    # --- executing -------------------------------------------------------------------------------------

    def fetch(self, name: str, /, **parameters: Any) -> list[Any]:
        """Execute one of our statements for this consumer; returns its rows."""

        def work(session: Session) -> list[Any]:
            with session.cursor(binary=True) as cursor:
                cursor.execute(query(name), {"consumer_id": self.id, **parameters})
                return cursor.fetchall() if cursor.description else []

        return self.run(work)

    def run(self, work: Callable[[Session], T]) -> T:
        """Call a function with the session.

        Raises:
            SessionLost: the session is over, or the call ended it.
        """
        with self.waiting.lock:
            if self.lost is not None:
                raise SessionLost(f"the broker's session is over: {self.lost}")
            try:
                return work(self._session)
            except ReadOnlySqlTransaction as exc:
                self.lose(f"{READ_ONLY}: {exc}", exc)
            except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                if is_dead(self._session):
                    self.lose(str(exc).strip(), exc)
                raise

    # --- notifications -----------------------------------------------------------------------------------

    def on_notify(self, handler: Callable[[psycopg.Notify], None]) -> None:
        """Handle the notifications that arrive with the answer to a statement."""
        self._session.add_notify_handler(handler)

    def listen(self, queue_id: int) -> None:
        """Listen for a queue."""
        if self.listens:
            self.run(lambda session: session.execute(f"LISTEN celery_pgbg_queue_{queue_id:d}"))

    def unlisten(self, queue_id: int) -> None:
        """Stop listening for it."""
        if self.listens:
            self.run(lambda session: session.execute(f"UNLISTEN celery_pgbg_queue_{queue_id:d}"))

    def read(self, handler: Callable[[psycopg.Notify], None]) -> None:
        """Read the notifications that have come, without waiting."""

        def work(session: Session) -> None:
            session.pgconn.consume_input()
            while (note := session.pgconn.notifies()) is not None:
                handler(psycopg.Notify(note.relname.decode(), note.extra.decode(), note.be_pid))

        self.run(work)

    # --- the end -------------------------------------------------------------------------------------------

    def lose(self, reason: str, cause: Exception | None = None) -> NoReturn:
        """End the session, because it is useless now.

        Raises:
            SessionLost: always.
        """
        self.end(reason)
        raise SessionLost(f"the broker's session is over: {reason}") from cause

    def end(self, reason: str) -> None:
        """End the session, and wake all waiting threads."""
        if self.lost is None:
            self.lost = reason
        self._session.close()
        self.waiting.close()
