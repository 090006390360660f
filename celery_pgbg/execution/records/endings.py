"""The end of an attempt that a launching session has seen, as it is stored: what a background worker did not write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from celery_pgbg.database.values import own_context
from celery_pgbg.outcomes import Raised, Returned, Returns
from celery_pgbg.texts import as_json


@dataclass(frozen=True)
class StandaloneResult:
    """What is stored of a statement that has succeeded; fields as in ``celery_pgbg.outcome``."""

    returns: Returns = "command"
    command_tag: str | None = None
    row_count: int | None = None
    column_names: str | None = None
    column_types: bytes | None = None
    row_texts: list[str] | None = None

    def as_parameters(self) -> dict[str, Any]:
        """As ``store_outcome.sql`` takes it."""
        return asdict(self)


def as_outcome(ending: Returned | Raised) -> dict[str, Any]:
    """An end that a launching session has seen, its value a ``StandaloneResult``, as ``store_outcome.sql`` takes it."""
    report = ending.report if isinstance(ending, Raised) else None
    result = ending.value if isinstance(ending, Returned) else StandaloneResult()
    return {
        **result.as_parameters(),
        "succeeded": report is None,
        "sqlstate": report and report.sqlstate,
        "message": report and report.message,
        "error_fields": report and as_json(_without_statement(report.fields)),
    }


def _without_statement(fields: Mapping[str, str]) -> dict[str, str]:
    """An error's fields without the statement and its values, which PL/pgSQL puts into the context."""
    return {**fields, "context": own_context(fields["context"])} if "context" in fields else dict(fields)
