"""The fields of a task's message that we rely on. Every client of the broker can write any value there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from celery.exceptions import InvalidTaskError

#: The largest value of PostgreSQL's type ``integer``.
_MAX_INTEGER = 2**31 - 1

#: The field of a request that says why its task is refused.
REFUSED = "pgbg_refused"


def checked(request: Mapping[str, Any], max_retries: int | None) -> dict[str, Any]:
    """Check the fields of a message once, before any code uses them.

    Args:
        request: the fields of the message.
        max_retries: the task's; a refused task is not tried again.

    Returns:
        Harmless values for the wrong fields, and the reason under ``REFUSED``. Empty if all fields are right.

    Raises:
        InvalidTaskError: the message has no usable id, so its failure could not be stored. Celery rejects and logs the
            message.
    """
    task_id = request.get("id")
    if not isinstance(task_id, str) or not task_id:
        raise InvalidTaskError(f"the task's id must be a string, got {task_id!r:.100}")
    wrong = [name for name, (is_right, _) in _FIELDS.items() if not is_right(request.get(name))]
    if not wrong:
        return {}
    said = "; ".join(f"{name} must be {_FIELDS[name][1]}, got {request[name]!r:.100}" for name in wrong)
    return {**dict.fromkeys(wrong), "retries": max_retries or 0, REFUSED: f"its message is wrong: {said}"}


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value <= _MAX_INTEGER)


def _is_limit(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value) and value >= 0)


def _are_limits(value: Any) -> bool:
    return value is None or (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_limit, value)))


#: Each field, its check, and the check in words.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "retries": (_is_count, "a whole number"),
    "group_index": (_is_count, "a whole number"),
    "timelimit": (_are_limits, "two numbers of seconds or null"),
}
