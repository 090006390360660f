"""Finds whether a task's outcome alone is its result, so that Celery need not store a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery_pgbg.configuration import settings_of
from celery_pgbg.database.result_rows import KEPT_SECONDS, said_by
from celery_pgbg.texts import storable

#: The field of a request with the outcome's part of the result; set when the statement has ended.
_FIELD = "pgbg_task_meta"

#: The fields of a request that make Celery store more: children, or a chord's part.
_SAYING_MORE = ("callbacks", "chain", "chord", "children", "retries")

#: What Celery stores for a success besides value and time: names in the request, and in the task's meta.
_META = {"group": "group_id", "parent_id": "parent_id"}


def task_meta_of_success(task: Any, alias: str | None) -> dict[str, Any] | None:
    """Predict what Celery will store for a success of the running call besides its value, and for how long.

    Args:
        task: a SQL task.
        alias: the alias of the database where the statement runs.

    Returns:
        None if Celery may store more than an outcome can hold, or stores it elsewhere.
    """
    backend, request = task.backend, vars(task.request)
    if task.request.called_directly or task.request.is_eager or not hasattr(backend, "reads_outcomes_of"):
        return None
    if not task.atomic or task.ignores_result or task.wraps_its_call or task.track_started or task.track_progress:
        return None
    if any(request.get(name) for name in _SAYING_MORE) or task.app.conf.find_value_for_key("extended", "result"):
        return None
    meta = {name: request[field] for field, name in _META.items() if request.get(field)}
    if not all(isinstance(value, str) and storable(value) == value for value in meta.values()):
        return None
    if not backend.reads_outcomes_of(settings_of(task.app).dsn_of(alias)):
        return None
    return meta | ({KEPT_SECONDS: backend.expires} if backend.expires else {})


def note_outcome(request: Any, task_meta: Mapping[str, Any] | None) -> None:
    """Note the outcome's part of the result in the task's request; None if Celery has to store a result."""
    vars(request)[_FIELD] = task_meta


def says_its_outcome(request: Any, meta: Mapping[str, Any]) -> bool:
    """Whether the outcome already holds the meta that Celery is about to store for a success."""
    said = vars(request).get(_FIELD)
    if said is None or meta.get("children") or meta.get("traceback"):
        return False
    known = ("status", "result", "date_done", "children", "traceback")
    return {name: value for name, value in meta.items() if value is not None and name not in known} == said_by(said)
