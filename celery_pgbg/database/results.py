"""The database side of the result backend: stored results, saved groups, and chords."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, TypeVar

from psycopg import errors
from psycopg.rows import RowMaker, class_row

from celery_pgbg.database import queries, schema
from celery_pgbg.database.arrays import as_array
from celery_pgbg.database.callers import callers_transaction
from celery_pgbg.database.notifications import Notifications
from celery_pgbg.database.poolers import through_pooler
from celery_pgbg.database.result_rows import Payload, Reference, ResultRow, StoredPart, StoredResult
from celery_pgbg.database.session_set import SessionSet
from celery_pgbg.database.sessions import Session, connect, plan_once
from celery_pgbg.errors import SchemaMissing
from celery_pgbg.texts import original, storable

T = TypeVar("T")

#: How long to wait for the server's answer to a call, in seconds. Deleting expired results takes longest.
ANSWER_SECONDS = 300.0

#: Statements that sending writes and that return nothing: they are part of the transaction of ``sending_in``.
_SENT = frozenset(
    {"result_chord_reset", "result_chord_set_size", "result_chord_add_member", "result_group_store", "result_store"}
)

#: A statement is prepared after so many uses in a session, if there is no pooler in between.
_PREPARE_AFTER = 2


class ResultStore:
    """Stores and reads results. One in each process and database, shared by all threads.

    Every call is one statement in its own transaction and needs no state in the session, so it works through a pooler
    in transaction mode too. Every call may raise:

    - ``SessionLost``: the server cannot be reached now;
    - ``ServerRefused``: it refuses us for good;
    - ``SchemaMissing``: the schema is not there, or too old.

    Args:
        dsn: where the results are.
        connect_timeout: seconds.
        notify: announce stored results by NOTIFY, and listen for those of others.
    """

    def __init__(self, dsn: str, connect_timeout: float, notify: bool) -> None:
        self._dsn = dsn
        self._connect_timeout = connect_timeout
        self._notify = notify
        self._sessions = SessionSet(self._open_session)
        self._identity: tuple[int, int] | None = None
        self.notifications = Notifications(self._open_session, self.send, enabled=notify)

    def close(self) -> None:
        """End all sessions and the listening thread."""
        self.notifications.close()
        self._sessions.close()

    # --- results -----------------------------------------------------------------------------------

    def store(self, row: ResultRow, payload: Payload) -> None:
        """Store a task's state and value, unless it has succeeded already, and notify the waiting processes."""
        self._execute("result_store", asdict(row) | asdict(payload) | {"notify": self._notify})

    def store_reference(self, row: ResultRow, payload: Payload, reference: Reference) -> bool:
        """Store that a SQL task has succeeded and that its outcome is its value.

        Returns:
            False, with nothing stored, where this database has no such outcome.
        """
        parameters = asdict(row) | asdict(payload) | asdict(reference)
        return bool(self._fetch_one("result_store_reference", parameters)[0])

    def hide_outcomes(self, task_id: str) -> None:
        """Make readers wait for a stored result: the outcomes of this task are not its result."""
        self._execute("result_hide_outcomes", {"task_id": task_id})

    def read(self, task_ids: Iterable[str]) -> list[StoredResult]:
        """Read the state of each of these tasks: one row for each, also for unknown tasks."""
        return self._fetch(
            "result_read", {"task_ids": as_array(storable(task_id) for task_id in task_ids)}, StoredResult
        )

    def is_running(self, task_id: str) -> bool:
        """Check whether a statement of the task runs in this database."""
        return bool(self._fetch_one("result_is_running", {"task_id": task_id})[0])

    def forget(self, task_id: str) -> None:
        """Delete a task's result, or hide it if an outcome must stay."""
        self._execute("result_forget", {"task_id": task_id})

    def delete_expired(self, seconds: float | None, failure: float | None, chord: float | None) -> None:
        """Delete results, failures, groups and chords older than these ages. None keeps them."""
        ages = {"age_ms": seconds, "failure_age_ms": failure, "chord_age_ms": chord}
        parameters = {key: None if age is None else round(age * 1000) for key, age in ages.items()}
        self._execute("result_delete_expired", parameters)

    def send(self, channel: str, payload: str) -> None:
        """Send a notification."""
        self._execute("result_notify", {"channel": channel, "payload": payload})

    # --- groups ------------------------------------------------------------------------------------

    def store_group(self, group_id: str, payload: Payload) -> None:
        """Save a group."""
        self._execute("result_group_store", {"group_id": group_id, **asdict(payload)})

    def read_group(self, group_id: str) -> Payload | None:
        """Read a saved group."""
        found = self._fetch("result_group_read", {"group_id": group_id}, Payload)
        return found[0] if found else None

    def delete_group(self, group_id: str) -> None:
        """Delete a saved group."""
        self._execute("result_group_delete", {"group_id": group_id})

    # --- chords ------------------------------------------------------------------------------------

    def reset_chord(self, group_id: str) -> None:
        """Forget a finished chord of this id, because the same chord may be sent again."""
        self._execute("result_chord_reset", {"group_id": group_id})

    def set_chord_size(self, group_id: str, size: int) -> None:
        """Set the number of members."""
        self._execute("result_chord_set_size", {"group_id": group_id, "size": size})

    def add_chord_member(self, group_id: str, task_id: str) -> None:
        """Add one to the number of members."""
        self._execute("result_chord_add_member", {"group_id": group_id, "task_id": task_id})

    def record_chord_part(self, parameters: dict[str, Any]) -> str:
        """Record an ended member. Parameters and returned state: see ``functions/result_chord_part.sql``."""
        return str(self._fetch_one("result_chord_record_part", parameters)[0])

    def extend_chord_claim(self, group_id: str, claim: str, seconds: float) -> bool:
        """Extend a claim to so long from now. False if another member has taken it over."""
        parameters = {"group_id": group_id, "claim": claim, "lease_ms": round(seconds * 1000)}
        return self._run("result_chord_extend_claim", parameters, lambda cursor: cursor.fetchone() is not None)

    def read_chord_parts(self, group_id: str, ordered: bool) -> list[StoredPart]:
        """Read the ended members in the header's order, or in the order in which they ended."""
        return self._fetch("result_chord_read_parts", {"group_id": group_id, "ordered": ordered}, StoredPart)

    def finish_chord(self, group_id: str, claim: str) -> None:
        """Drop a chord's values, if we still hold the claim."""
        self._execute("result_chord_finish", {"group_id": group_id, "claim": claim})

    def where(self) -> tuple[int, int]:
        """The database of the results: the identity of its cluster, and its own."""
        if self._identity is None:
            row = self._sessions.run(lambda session: session.execute(queries.query("database_identity")).fetchone())
            assert row is not None
            self._identity = row[0], row[1]
        return self._identity

    # --- sessions ----------------------------------------------------------------------------------

    def _open_session(self) -> Session:
        name = f"pgbg results {os.getpid()}@{socket.gethostname()}"[:63]
        session = connect(
            self._dsn,
            application_name=name,
            connect_timeout=self._connect_timeout,
            answer_timeout=ANSWER_SECONDS,
            prepare_threshold=None,
        )
        # Prepared statements halve the server's work, but do not work through a pooler in transaction mode.
        if not through_pooler(session):
            session.prepare_threshold = _PREPARE_AFTER
            plan_once(session)
        return session

    def _execute(self, name: str, parameters: dict[str, Any]) -> None:
        self._run(name, parameters, lambda cursor: None)

    def _fetch_one(self, name: str, parameters: dict[str, Any]) -> Any:
        return self._run(name, parameters, lambda cursor: cursor.fetchone())

    def _fetch(self, name: str, parameters: dict[str, Any], kind: type[T]) -> list[T]:
        return self._run(name, parameters, lambda cursor: cursor.fetchall(), row_factory=_with_texts(kind))

    def _run(self, name: str, parameters: dict[str, Any], take: Callable[[Any], T], **options: Any) -> T:
        caller = callers_transaction()
        if caller is not None and name in _SENT:
            caller.require(self.where(), "the result backend")
            caller.fetch(queries.statement(name), parameters)
            return take(None)

        def work(session: Session) -> T:
            try:
                with session.cursor(binary=True, **options) as cursor:
                    return take(cursor.execute(queries.query(name), _storable(parameters)))
            except (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedFunction) as exc:
                schema.check_installed(session)
                raise SchemaMissing(
                    f"the celery_pgbg schema in database {session.info.dbname!r} is not complete: "
                    "run `celery -A yourproject pgbg install`"
                ) from exc
            except errors.InsufficientPrivilege as exc:
                schema.check_rights(session, exc, "read or store results")
                raise

        return self._sessions.run(work)


def _storable(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: storable(value) if type(value) is str else value for name, value in parameters.items()}


def _with_texts(kind: type[T]) -> Callable[[Any], RowMaker[T]]:
    """Make rows of a class; texts are as they were stored."""

    def factory(cursor: Any) -> RowMaker[T]:
        make = class_row(kind)(cursor)
        return lambda values: make([original(value) if isinstance(value, str) else value for value in values])

    return factory


_stores: dict[tuple[int, str, bool], ResultStore] = {}
_stores_lock = threading.Lock()


def store_of(dsn: str, connect_timeout: float, notify: bool) -> ResultStore:
    """Find or make this process's store for a database. A forked process makes its own."""
    key = (os.getpid(), dsn, notify)
    with _stores_lock:
        if key not in _stores:
            _stores[key] = ResultStore(dsn, connect_timeout, notify)
        return _stores[key]


def close_stores() -> None:
    """End the sessions and threads of this process's stores."""
    with _stores_lock:
        ours = [key for key in _stores if key[0] == os.getpid()]
        closing = [_stores.pop(key) for key in ours]
    for store in closing:
        store.close()


def _renew_lock() -> None:
    global _stores_lock
    _stores_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
