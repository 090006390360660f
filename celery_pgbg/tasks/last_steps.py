"""Finds whether anything is left to do after a task's commit; if not, its message ends in the same transaction."""

from __future__ import annotations

from typing import Any

import psycopg
from celery import Task, signals

from celery_pgbg.errors import PgbgError
from celery_pgbg.orders import MessageRow

#: The field of a request that names its message's row in our broker. The request writes this field itself, and never
#: takes it from the message.
FIELD = "pgbg_message"

#: The fields of a request that mean follow-up work after the success. A group without a chord has none: Celery counts
#: the members of chords only.
_FOLLOWERS = ("callbacks", "chain", "chord")


def message_that_ends(task: Any) -> MessageRow | None:
    """Find the message that may end together with the running statement's success.

    Returns:
        None if the message is from another broker, or if the success leaves something to do; it is acknowledged after
        that.
    """
    request = vars(task.request)
    message: MessageRow | None = request.get(FIELD)
    if message is None or not task.atomic or not task.acks_late or any(request.get(name) for name in _FOLLOWERS):
        return None
    kind = type(task)
    if kind.on_success is not Task.on_success or kind.after_return is not Task.after_return:
        return None
    if task.wraps_its_call or signals.task_success.receivers:
        return None
    return message if task.ignores_result or _has_its_result(task, message) else None


def _has_its_result(task: Any, message: MessageRow) -> bool:
    """Whether the outcome is all that the result backend needs: the backend is ours and in the message's database."""
    is_in = getattr(task.backend, "is_in", None)
    if is_in is None or task.app.conf.result_extended:
        return False
    try:
        return bool(is_in(message[0]))
    except (PgbgError, psycopg.Error):
        return False
