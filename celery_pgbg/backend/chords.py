"""Chords counted in SQL: the member that ends last sends the callback."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from celery import states
from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, allow_join_result
from celery.utils.functional import _regen

from celery_pgbg.backend.task_metas import MAX_INTEGER, TaskMetas
from celery_pgbg.database.result_rows import Payload, Reference, StoredPart
from celery_pgbg.database.results import ResultStore

logger = logging.getLogger(__name__)

#: How long a member that has claimed the callback may take to send it, in seconds. After that a
#: redelivered member may send it instead.
_LEASE_SECONDS = 30.0

#: Pause between checks of a chord that another member has claimed, in seconds.
_BUSY_SECONDS = 0.5

#: The place of a member without a place: the last.
_LAST_INDEX = MAX_INTEGER


T = TypeVar("T")


class ChordBackend(Protocol):
    """The part of a result backend that counting needs."""

    app: Any
    metas: TaskMetas

    @property
    def store(self) -> ResultStore:
        """Where members are counted."""

    def patiently(self, operation: Callable[..., T], *args: Any, limit: float | None = None) -> T:
        """Do something that must not get lost."""

    def briefly(self, operation: Callable[..., T], *args: Any) -> T:
        """Do something that a caller may be waiting for."""

    def reference_of(self, state: str, request: Any) -> Reference | None:
        """Find whether a member's value may be the outcome of its statement."""

    def encode_result(self, result: Any, state: str) -> Any:
        """Make a value or an error ready for the serializer."""

    def chord_error_from_stack(self, callback: Any, exc: Any = None) -> Any:
        """Fail the callback."""


class Chords:
    """Answers Celery's calls about chords, with the behaviour of its Redis backend.

    Args:
        backend: the result backend.
    """

    def __init__(self, backend: ChordBackend) -> None:
        self._backend = backend
        options = backend.app.conf.get("result_backend_transport_options") or {}
        self._ordered = bool(options.get("result_chord_ordered", True))

    def apply(self, header_result_args: tuple[Any, ...]) -> None:
        """Before the header is sent: save its structure if it is nested."""
        backend = self._backend
        backend.briefly(backend.store.reset_chord, header_result_args[0])
        if isinstance(header_result_args[1], _regen):
            return
        header_result = backend.app.GroupResult(*header_result_args)
        if any(isinstance(member, GroupResult) for member in header_result.results):
            header_result.save(backend=backend)

    def on_part_return(self, request: Any, state: str, result: Any) -> None:
        """Record an ended member; send the callback, or fail it, if it was the last."""
        if not request.group or not request.id:
            return
        claim = uuid.uuid4().hex
        while (state_now := self._record(request, state, result, claim)) == "busy":
            # Only a redelivered member comes here: the claiming member may have died.
            time.sleep(_BUSY_SECONDS)
        if state_now == "claimed":
            self._conclude(request, claim)

    # --- one member ----------------------------------------------------------------------------------

    def _record(self, request: Any, state: str, result: Any, claim: str) -> str:
        backend = self._backend
        reference = backend.reference_of(state, request)
        payload = backend.metas.no_value() if reference else self._encoded(state, result)
        parameters = {
            "group_id": str(request.group),
            "task_id": str(request.id),
            "group_index": request.group_index if _is_index(request.group_index) else _LAST_INDEX,
            "status": state,
            "content_type": payload.content_type,
            "content_encoding": payload.content_encoding,
            "value": payload.value,
            "outcome_attempt": reference.attempt if reference else None,
            "task_name": reference.task_name if reference else None,
            "claim": claim,
            "lease_ms": round(self._lease() * 1000),
        }
        recorded: str = backend.patiently(backend.store.record_chord_part, parameters)
        if recorded != "outcome_missing":
            return recorded
        parameters |= {"value": self._encoded(state, result).value, "outcome_attempt": None}
        return str(backend.patiently(backend.store.record_chord_part, parameters))

    def _encoded(self, state: str, result: Any) -> Payload:
        return self._backend.metas.encoded(self._backend.encode_result(result, state))

    def _lease(self) -> float:
        """Long enough to join the header's results."""
        return max(_LEASE_SECONDS, 2 * (self._backend.app.conf.result_chord_join_timeout or 0))

    # --- the last member -----------------------------------------------------------------------------

    def _conclude(self, request: Any, claim: str) -> None:
        backend, group_id = self._backend, str(request.group)
        callback = maybe_signature(request.chord, app=backend.app)
        try:
            self._call_back(callback, group_id, claim)
        except _ClaimLost:
            logger.warning("the callback of chord %s is not sent: another Celery worker has taken it over", group_id)
            return
        except Exception as exc:
            error = exc if isinstance(exc, ChordError) else _chord_error(f"Join error: {exc!r}", exc)
            logger.error("Chord %r raised: %r", group_id, error, exc_info=exc)
            backend.chord_error_from_stack(callback, error)
        backend.patiently(backend.store.finish_chord, group_id, claim)

    def _call_back(self, callback: Any, group_id: str, claim: str) -> None:
        backend = self._backend
        values = self._join(group_id)
        if not backend.patiently(backend.store.extend_chord_claim, group_id, claim, self._lease()):
            raise _ClaimLost
        try:
            # Celery 5.7 spaces the retries of a publication made from a result backend.
            publish = getattr(backend.app.amqp, "_retry_publish", lambda send, *args: send(*args))
            publish(callback.delay, values)
        except Exception as exc:
            raise _chord_error(f"Callback error: {exc!r}", exc) from exc

    def _join(self, group_id: str) -> list[Any]:
        """Gather the values of the header.

        Raises:
            ChordError: a member has failed.
        """
        backend = self._backend
        nested = backend.patiently(partial(GroupResult.restore, group_id, backend=backend, app=backend.app))
        if nested is None:
            parts = backend.patiently(backend.store.read_chord_parts, group_id, self._ordered)
            return [self._value_of(part) for part in parts]
        join = nested.join_native if nested.supports_native_join else nested.join
        with allow_join_result():
            values: list[Any] = join(timeout=backend.app.conf.result_chord_join_timeout, propagate=True)
        return values

    def _value_of(self, part: StoredPart) -> Any:
        status, value = self._backend.metas.value_of(part)
        if status in states.PROPAGATE_STATES:
            raise _chord_error(f"Dependency {part.task_id} raised {value!r}", value)
        return value


def _is_index(value: Any) -> bool:
    """Whether a message has a possible place in a header."""
    return isinstance(value, int) and 0 <= value <= _LAST_INDEX


class _ClaimLost(Exception):
    """Our lease expired, and another member has claimed the callback."""


def _chord_error(message: str, cause: Any) -> ChordError:
    error = ChordError(message)
    if isinstance(cause, Exception):
        error.__cause__ = cause
    return error
