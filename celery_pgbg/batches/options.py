"""The options of a batched task, and the fields of its message, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery_pgbg.errors import BindingError, TaskDefinitionError

#: The message's header that names the walk to continue, or the part of a table.
HEADER = "pgbg_walk"

MOST_PARTS = 1000


def check_options(task: Any, owner: str) -> None:
    """Check the options of a batched task's class.

    Raises:
        TaskDefinitionError: names the owner, the option, and what was expected.
    """
    if not isinstance(task.table, str) or not task.table.strip():
        raise TaskDefinitionError(f"{owner}: table must be the name of a table, got {task.table!r}")
    columns = key_columns(task.key)
    if not columns or not all(isinstance(column, str) and column for column in columns):
        raise TaskDefinitionError(f"{owner}: key must be a column or a tuple of columns, got {task.key!r}")
    _check_number(owner, "batch_seconds", task.batch_seconds, 0.001, 3600)
    _check_number(owner, "max_batch_rows", task.max_batch_rows, 1, 10_000_000, whole=True)
    if task.max_replication_lag is not None:
        _check_number(owner, "max_replication_lag", task.max_replication_lag, 0, 86_400)
    if not isinstance(task.yields_to_waiters, bool):
        raise TaskDefinitionError(f"{owner}: yields_to_waiters must be True or False, got {task.yields_to_waiters!r}")
    if task.wait_while is not None and not (isinstance(task.wait_while, str) and task.wait_while.strip()):
        raise TaskDefinitionError(f"{owner}: wait_while must be a condition in SQL or None, got {task.wait_while!r}")
    _check_others(task, owner)


def _check_others(task: Any, owner: str) -> None:
    """Refuse options of SQL tasks that have no meaning for batched tasks."""
    if not task.atomic or task.reuse:
        raise TaskDefinitionError(f"{owner}: a batched task takes neither atomic=False nor reuse=True")
    if task.returns is not None:
        raise TaskDefinitionError(
            f"{owner}: a batched task takes no returns=, because it returns its rows, batches and seconds"
        )
    if any(name.lower() == "statement_timeout" for name in task.settings or {}):
        raise TaskDefinitionError(
            f"{owner}: settings may not have 'statement_timeout': to PostgreSQL all batches are one statement; "
            "use batch_seconds, lock_timeout, and transaction_timeout from PostgreSQL 17 on"
        )


def _check_number(owner: str, name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise TaskDefinitionError(f"{owner}: {name} must be {kind} in {low:g} ... {high:g}, got {value!r}")


def key_columns(key: Any) -> tuple[str, ...]:
    """The columns of a key, given as a string or a tuple."""
    return (key,) if isinstance(key, str) else tuple(key or ())


def read_header(owner: str, header: Any) -> tuple[str | None, tuple[str, int, int] | None]:
    """Read from a message which walk to continue, and which part of which split it is.

    Raises:
        BindingError: the header does not have our form.
    """
    if header is None:
        return None, None
    problem = BindingError(
        f"{owner}: the message's header {HEADER} has a form that celery-pgbg does not write: {header!r:.200}"
    )
    if not isinstance(header, Mapping) or set(header) - {"walk_id", "split", "part", "parts"}:
        raise problem
    walk_id, split, part, parts = (header.get(name) for name in ("walk_id", "split", "part", "parts"))
    if walk_id is not None and not isinstance(walk_id, str):
        raise problem
    if split is None:
        return walk_id, None
    if not (isinstance(split, str) and type(part) is int and type(parts) is int and 1 <= part <= parts <= MOST_PARTS):
        raise problem
    return walk_id, (split, part, parts)
