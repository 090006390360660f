"""The sending side: publishing and declaring, on one session for all threads of a process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import psycopg
from kombu.utils.functional import retry_over_time
from psycopg import errors
from psycopg.rows import dict_row

from celery_pgbg.broker.consumer_session import READ_ONLY
from celery_pgbg.broker.messages import Parcel
from celery_pgbg.broker.queries import query, text
from celery_pgbg.database import poolers, queries, schema
from celery_pgbg.database.callers import callers_transaction
from celery_pgbg.database.session_set import SessionSet
from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import SchemaMissing, SessionLost

#: The largest number of messages in one transaction.
_BATCH = 500

#: Errors after which messages may be sent again.
_LOSSES = (SessionLost, psycopg.OperationalError, psycopg.InterfaceError)

#: The parts of a retry policy that are about numbers and pauses, with kombu's defaults.
_PAUSES = {"max_retries": None, "interval_start": 1, "interval_step": 1, "interval_max": 1}


class Outlet:
    """Sends messages. Every call may raise ``SessionLost``, ``ServerRefused`` or ``SchemaMissing``.

    Args:
        open_session: makes a connected session.
    """

    def __init__(self, open_session: Any) -> None:
        self._open_bare_session = open_session
        self._sessions = SessionSet(self._open_session, limit=1)
        self._identity: tuple[int, int] | None = None

    def close(self) -> None:
        """End the session."""
        self._sessions.close()

    def check(self) -> None:
        """Check that the server answers, has our schema and accepts writes.

        On a standby, or with ``default_transaction_read_only``, a later refusal would make Celery connect again without
        a pause.
        """

        def work(session: Session) -> None:
            schema.check_installed(session)
            row = session.execute(query("accepts_writes")).fetchone()
            if row is None or not row[0]:
                session.close()
                raise SessionLost(f"{READ_ONLY}: it is a standby, or default_transaction_read_only is on")

        self._sessions.run(work)

    def publish(self, parcels: Sequence[Parcel]) -> list[int]:
        """Send messages; those of one call commit together, by the hundred. Returns the number of queues for each.

        In a block of ``sending_in`` they are part of the caller's transaction.
        """
        caller = callers_transaction()
        if caller is not None:
            caller.require(self._where(), "the broker")
            # The caller decides whether its commit waits for the disk.
            return [caller.fetch(text("publish"), parcel.parameters(relaxed=False))[0][0] for parcel in parcels]
        counts: list[int] = []
        for start in range(0, len(parcels), _BATCH):
            counts += self._publish(parcels[start : start + _BATCH])
        return counts

    def _where(self) -> tuple[int, int]:
        if self._identity is None:
            row = self._run(lambda session: session.execute(queries.query("database_identity")).fetchone())
            self._identity = row[0], row[1]
        return self._identity

    def _publish(self, parcels: Sequence[Parcel]) -> list[int]:
        # If the answer is lost, the messages may have been stored: kombu's policy decides whether they are sent again.
        if len(parcels) == 1:
            parameters = parcels[0].parameters()
            return [self._run(lambda session: _first_row(session, "publish", parameters)[0], is_repeatable=False)]
        relaxed = all(parcel.relaxed for parcel in parcels)

        def work(session: Session) -> list[int]:
            with session.pipeline(), session.transaction():
                sent = [session.execute(query("publish"), parcel.parameters(relaxed)) for parcel in parcels]
                rows = [cursor.fetchone() for cursor in sent]
            return [row[0] for row in rows if row]

        counts: list[int] = self._run(work, is_repeatable=False)
        return counts

    def fetch(self, name: str, parameters: dict[str, Any]) -> Any:
        """Execute one of our statements; returns its first row, or None."""
        return self._run(lambda session: _first_row(session, name, parameters))

    def fetch_all(self, name: str) -> list[Any]:
        """Execute one of our statements; returns its rows."""
        rows: list[Any] = self._run(lambda session: session.execute(query(name)).fetchall())
        return rows

    def fetch_dicts(self, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Execute one of our statements; returns its rows as dicts."""

        def work(session: Session) -> list[dict[str, Any]]:
            with session.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(query(name), parameters).fetchall()

        rows: list[dict[str, Any]] = self._run(work)
        return rows

    def _run(self, work: Any, is_repeatable: bool = True) -> Any:
        def checked(session: Session) -> Any:
            try:
                return work(session)
            except errors.ReadOnlySqlTransaction as exc:
                session.close()
                raise SessionLost(f"{READ_ONLY}: {exc}") from exc
            except (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedFunction) as exc:
                schema.check_installed(session)
                raise SchemaMissing(
                    f"the broker's functions are not in database {session.info.dbname!r}: "
                    "run `celery -A yourproject pgbg install`"
                ) from exc
            except errors.InsufficientPrivilege as exc:
                schema.check_rights(session, exc, "take messages or wait for replies")
                raise

        return self._sessions.run(checked, is_repeatable)

    def _open_session(self) -> Session:
        session: Session = self._open_bare_session()
        if poolers.through_pooler(session):
            # A pooler may use another session the next time.
            session.prepare_threshold = None
        else:
            session.execute(query("prepare_sender"))
        return session


def _first_row(session: Session, name: str, parameters: dict[str, Any]) -> Any:
    cursor = session.execute(query(name), parameters)
    return cursor.fetchone() if cursor.description else None


_gathered: ContextVar[dict[Outlet, list[Parcel]] | None] = ContextVar("celery_pgbg_gathered", default=None)


def gather(outlet: Outlet, parcel: Parcel) -> bool:
    """Collect a message in a block of ``together``. False outside such a block.

    A full transaction is sent. If that fails, only this message is not collected, so kombu may try it again.
    """
    gathered = _gathered.get()
    if gathered is None:
        return False
    parcels = gathered.setdefault(outlet, [])
    if len(parcels) + 1 < _BATCH:
        parcels.append(parcel)
    else:
        outlet.publish([*parcels, parcel])
        parcels.clear()
    return True


@contextmanager
def together(retry_policy: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Send the messages of this block in few transactions, the rest at its end; nothing more after an error.

    Args:
        retry_policy: how often and when the rest is sent again after a lost connection, as kombu's ``ensure`` takes it;
            None: never.
    """
    if _gathered.get() is not None:
        yield
        return
    gathered: dict[Outlet, list[Parcel]] = {}
    token = _gathered.set(gathered)
    try:
        yield
    finally:
        _gathered.reset(token)
    policy = {name: value for name, value in (retry_policy or {"max_retries": 0}).items() if name in _PAUSES}
    for outlet, parcels in gathered.items():
        if parcels:
            retry_over_time(outlet.publish, _LOSSES, args=(parcels,), **{**_PAUSES, **policy})
