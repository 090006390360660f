"""The placeholder of a batch's range, ``{batch}``, in the statement of a task's body."""

from __future__ import annotations

import re
from typing import Any

from psycopg import sql

from celery_pgbg.errors import TaskDefinitionError

#: ``{batch}``, and ``{batch:o}`` if the statement has the alias ``o`` for the table.
_PLACEHOLDER = re.compile(r"\{batch(?::([^\W\d][\w$]*))?\}")


def mark_batches(task_name: str, query: Any, mark: str) -> Any:
    """Put a mark in place of the placeholder, before values are bound that may look like a placeholder.

    Args:
        task_name: for messages.
        query: what psycopg takes as a query.
        mark: a word that no value has.

    Raises:
        TaskDefinitionError: there is no placeholder, so each batch would be the whole table.
    """
    marker = _Marker(mark)
    marked = marker.marked(query)
    if not marker.count:
        raise TaskDefinitionError(
            f"{task_name}: the statement of a batched task needs the placeholder {{batch}} where the condition for the "
            "rows of one batch goes, such as in: ... WHERE {batch} AND total IS NULL"
        )
    return marked


def _joined(query: sql.Composed) -> list[sql.Composable]:
    """The parts of a query, texts that follow each other as one: ``format`` makes two of ``{{batch}}``."""
    parts: list[sql.Composable] = []
    for part in query:
        if isinstance(part, sql.SQL) and parts and isinstance(parts[-1], sql.SQL):
            parts[-1] = sql.SQL(parts[-1].as_string(None) + part.as_string(None))
        else:
            parts.append(part)
    return parts


class _Marker:
    def __init__(self, mark: str) -> None:
        self._mark = mark
        self.count = 0

    def marked(self, query: Any) -> Any:
        if isinstance(query, str):
            return self._in_text(query)
        if isinstance(query, sql.SQL):
            return sql.SQL(self._in_text(query.as_string(None)))
        if isinstance(query, sql.Composed):
            return sql.Composed([self.marked(part) for part in _joined(query)])
        if type(query).__name__ == "Template":
            return type(query)(*[self._in_text(part) if isinstance(part, str) else part for part in query])
        return query

    def _in_text(self, text: str) -> str:
        marked, count = _PLACEHOLDER.subn(lambda found: f"{self._mark}_{found.group(1) or ''}_", text)
        self.count += count
        return marked
