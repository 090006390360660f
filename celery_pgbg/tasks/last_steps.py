"""Whether something is left to do once a task's statement has committed: else its message ends in that transaction."""

from __future__ import annotations

from typing import Any

import psycopg
from celery import Task, signals

from celery_pgbg.errors import PgbgError
from celery_pgbg.orders import MessageRow

#: The field of a request that says which row of our broker its message is. Written by the request itself, never taken
#: from the message.
FIELD = "pgbg_message"

#: What a request has where something is to be sent or counted after the success. A member of a mere group has nothing:
#: Celery counts those of chords only.
_FOLLOWERS = ("callbacks", "chain", "chord")


def message_that_ends(task: Any) -> MessageRow | None:
    """Find the message that may end with the success of the statement that the task runs now.

    Returns:
        None where it comes from another broker, or where the success leaves something to do: then it is acknowledged
        when that is done.
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
    """Whether the outcome is all that the result backend needs: it is ours, in the database of the message."""
    is_in = getattr(task.backend, "is_in", None)
    if is_in is None or task.app.conf.result_extended:
        return False
    try:
        return bool(is_in(message[0]))
    except (PgbgError, psycopg.Error):
        return False
