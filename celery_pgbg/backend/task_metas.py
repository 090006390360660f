"""Celery's task meta as rows, and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Protocol, TypeAlias

import psycopg
from celery import states
from celery.backends import base
from celery.exceptions import BackendStoreError, WorkerLostError
from kombu.serialization import loads

from celery_pgbg.celery_patches.requests import is_asked_by_celery_itself
from celery_pgbg.database.result_rows import OutcomeColumns, Payload, ResultRow, StoredPart, StoredResult, said_by

TaskMeta: TypeAlias = dict[str, Any]

#: PostgreSQL's limit for a value is 1 GB, and libpq's for a message is the same; the rest of the message is small.
MAX_VALUE_BYTES = 1_073_741_823 - 16_777_216

#: Of PostgreSQL's type ``integer``.
MAX_INTEGER = 2**31 - 1

#: Fields with their own columns, if the value has this type; the rest of a task's meta is encoded with the serializer.
_COLUMNS: dict[str, type] = {
    "traceback": str,
    "date_done": datetime,
    "group_id": str,
    "parent_id": str,
    "name": str,
    "worker": str,
    "retries": int,
    "queue": str,
}


class EarlyMeta(dict[str, Any]):
    """The meta of a task while only its outcome exists, as an ``AsyncResult`` keeps it.

    Celery's part is read when a caller asks for it, but not when Celery itself begins to keep the meta.

    Args:
        meta: the known part.
        read: reads the meta again.
    """

    def __init__(self, meta: TaskMeta, read: Callable[[], TaskMeta]) -> None:
        super().__init__(meta)
        self._read = read

    def get(self, name: str, default: Any = None) -> Any:
        """The present value of this name."""
        if name not in self and not is_asked_by_celery_itself():
            self.update(self._read())
        return super().get(name, default)


class Serializer(Protocol):
    """The encoding of a task's meta: a part of Celery's backends."""

    content_type: str
    content_encoding: str
    #: Content types that may be read.
    accept: Any

    def encode(self, data: Any) -> str | bytes:
        """Encode a value."""

    def exception_to_python(self, exc: Any) -> Any:
        """Make an error from its stored form."""


class TaskMetas:
    """Encodes and decodes with the backend's serializer.

    Args:
        backend: the backend with the serializer.
    """

    def __init__(self, backend: Serializer) -> None:
        self._backend = backend

    def encoded(self, data: Any) -> Payload:
        """Encode a value.

        Raises:
            kombu.exceptions.EncodeError: the serializer cannot encode it.
            BackendStoreError: the value is larger than PostgreSQL can hold.
        """
        encoded = self._backend.encode(data)
        value = encoded.encode() if isinstance(encoded, str) else encoded
        if len(value) > MAX_VALUE_BYTES:
            raise BackendStoreError(f"a result of {len(value)} bytes is larger than PostgreSQL can hold (1 GB)")
        return Payload(self._backend.content_type, self._backend.content_encoding, value)

    def no_value(self) -> Payload:
        """Name only the encoding of the rest of a row."""
        return Payload(self._backend.content_type, self._backend.content_encoding, None)

    def decoded(self, value: bytes, content_type: str | None, content_encoding: str | None) -> Any:
        """Decode a value, whichever serializer wrote it, if ``result_accept_content`` allows that."""
        # Celery 5.7 can compress results, and marks compressed results.
        decompress: Callable[[bytes], bytes] = getattr(base, "decompress_payload", bytes)
        return loads(decompress(value), content_type, content_encoding, accept=self._backend.accept)

    def value_of(self, row: StoredResult | StoredPart) -> tuple[str, Any]:
        """Decode a stored value, or the outcome that stands for it.

        Returns:
            State and value. FAILURE and the error if Python cannot hold the outcome's value; PENDING if the outcome
            has expired, as for an expired result.
        """
        if row.attempt is not None and (
            row.outcome_attempt is not None or row.status not in states.READY_STATES or _is_result(row)
        ):
            return _outcome_of(row)
        if row.status is None or row.value is None:
            return states.PENDING, None
        value = self.decoded(row.value, row.content_type, row.content_encoding)
        return row.status, self._backend.exception_to_python(value) if row.status in states.EXCEPTION_STATES else value

    def row_of(self, task_id: str, meta: TaskMeta, attempt: int | None = None) -> ResultRow:
        """Make the row of a task's meta, without its result.

        Args:
            task_id: the task.
            meta: its meta.
            attempt: which attempt has this state. It is stored even if the meta does not have it, without
                ``result_extended``: so the state of an earlier attempt that comes late is known.
        """
        rest = {name: value for name, value in meta.items() if value is not None and name not in ("status", "result")}
        columns = {name: rest.pop(name) for name in _COLUMNS if _fits(name, rest.get(name))}
        # The usual value, an empty list, takes no room.
        rest["children"] = meta.get("children")
        if rest["children"] == []:
            del rest["children"]
        details = self.encoded(rest).value if rest else None
        if _fits("retries", attempt):
            columns.setdefault("retries", attempt)
        columns = dict.fromkeys(_COLUMNS) | columns
        return ResultRow(task_id=task_id, status=meta["status"], details=details, **columns)

    def meta_of(self, row: StoredResult) -> TaskMeta:
        """Make a task's meta; without children, if the outcome exists and Celery's part is still to come."""
        status, value = (states.PENDING, None) if row.forgotten else self.value_of(row)
        meta: TaskMeta = {"task_id": row.task_id, "status": status, "result": value, "traceback": row.traceback}
        if row.task_meta is not None and _is_result(row):
            return meta | {"traceback": None, "children": [], "date_done": row.finished_at} | said_by(row.task_meta)
        meta["date_done"] = _in_utc(row.date_done or row.finished_at)
        if row.status is None or row.forgotten:
            return meta
        if row.attempt is not None and row.status not in states.READY_STATES:
            return meta | self._what_has_stayed(row)
        names = [name for name in list(_COLUMNS)[2:] if name != "retries" or _is_extended(row)]
        meta |= {name: value for name in names if (value := getattr(row, name)) is not None}
        meta["children"] = []
        if row.details is not None:
            meta |= self.decoded(row.details, row.content_type, row.content_encoding)
        return meta

    def _what_has_stayed(self, row: StoredResult) -> TaskMeta:
        """Take from a state that was stored before the outcome, such as RETRY, what holds for the outcome too."""
        names = ["name", "group_id", "parent_id", "queue"] + ["worker"] * (row.retries == row.attempt)
        meta: TaskMeta = {name: value for name in names if (value := getattr(row, name)) is not None}
        if row.retries is not None and _is_extended(row):
            meta["retries"] = row.attempt
        if row.details is not None:
            meta |= self.decoded(row.details, row.content_type, row.content_encoding)
            meta.pop("children", None)
        return meta | {"traceback": None, "date_done": _in_utc(row.finished_at)}


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(timezone.utc)


def _is_extended(row: StoredResult) -> bool:
    """Whether it was stored with ``result_extended``, which always has the task's name."""
    return row.name is not None


def _fits(name: str, value: Any) -> bool:
    if name == "retries":
        return isinstance(value, int) and abs(value) <= MAX_INTEGER
    return isinstance(value, _COLUMNS[name])


def _is_result(row: StoredResult | StoredPart) -> bool:
    """Whether the outcome is the whole result."""
    return isinstance(row, StoredResult) and row.task_meta is not None and not row.forgotten


def _outcome_of(row: OutcomeColumns) -> tuple[str, Any]:
    if isinstance(row, StoredResult) and row.loss is not None:
        return states.FAILURE, WorkerLostError(row.loss)
    try:
        return states.SUCCESS, row.outcome_value()
    except Exception as exc:  # noqa: BLE001 - whatever psycopg's loaders raise
        message = f"the statement committed, but a value of its result cannot be loaded: {exc}"
        return states.FAILURE, psycopg.DataError(message)
