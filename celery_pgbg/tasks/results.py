"""Whether a task's outcome is its result as it stands, so that Celery need not store one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery_pgbg.configuration import settings_of
from celery_pgbg.database.result_rows import KEPT_SECONDS, said_by
from celery_pgbg.texts import storable

#: The field of a request that has what the outcome says of the success; set when the statement has ended.
_FIELD = "pgbg_task_meta"

#: What a request has where Celery stores more of a success: its children, or a chord's part.
_SAYING_MORE = ("callbacks", "chain", "chord", "children", "retries")

#: What Celery stores of a success besides its value and its time, by the names in the request and in the task's meta.
_META = {"group": "group_id", "parent_id": "parent_id"}


def task_meta_of_success(task: Any, alias: str | None) -> dict[str, Any] | None:
    """Foretell what Celery will store of the success of the call that runs now, besides its value, and for how long.

    Args:
        task: a SQL task.
        alias: of the database where its statement runs.

    Returns:
        None where it may store more than an outcome can say, or somewhere else.
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
    """Note in the request of a task what its outcome says, None where Celery's result is to be stored."""
    vars(request)[_FIELD] = task_meta


def says_its_outcome(request: Any, meta: Mapping[str, Any]) -> bool:
    """Whether the meta that Celery is about to store of a success says what the outcome says already."""
    said = vars(request).get(_FIELD)
    if said is None or meta.get("children") or meta.get("traceback"):
        return False
    known = ("status", "result", "date_done", "children", "traceback")
    return {name: value for name, value in meta.items() if value is not None and name not in known} == said_by(said)
