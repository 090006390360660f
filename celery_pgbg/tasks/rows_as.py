"""Rows as objects of a class. They are made when a result is read, because a message has only dicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, is_typeddict

from celery_pgbg.errors import TaskDefinitionError

#: Shapes of a result with rows; None is rows if the statement returns rows.
_WITH_ROWS = (None, "rows", "row")


def check_rows_as(owner: str, kind: Any, returns: Any) -> None:
    """Check the option.

    Raises:
        TaskDefinitionError: rows cannot be made into this class, or there are no rows.
    """
    if kind is None:
        return
    _maker(kind, owner)
    if returns not in _WITH_ROWS:
        raise TaskDefinitionError(f'{owner}: with returns="{returns}" there are no rows for rows_as')


def with_rows_as(kind: Any, value: Any) -> Any:
    """Make objects of the rows in a task's return value."""
    if kind is None:
        return value
    make = _maker(kind, "rows_as")
    if isinstance(value, list):
        return [make(row) for row in value]
    return make(value) if isinstance(value, dict) else value


def _maker(kind: Any, owner: str) -> Callable[[dict[str, Any]], Any]:
    if is_typeddict(kind):
        # To Python it is a dict.
        return dict
    if isinstance(kind, type):
        validate = getattr(kind, "model_validate", None)
        if validate is not None:
            return validate  # type: ignore[no-any-return] # pydantic's
        if dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields")):
            return lambda row: kind(**row)
    raise TaskDefinitionError(
        f"{owner}: rows_as must be a dataclass, a NamedTuple, a TypedDict or a pydantic model, got {kind!r}"
    )
