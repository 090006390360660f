"""Rows of a statement with ``atomic=False``: its columns before it runs, and the stored form of its rows."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from celery_pgbg.execution.records.endings import StandaloneResult
from celery_pgbg.outcomes import ErrorReport, Raised, Returned, Returns
from celery_pgbg.texts import as_json

#: A command tag that ends in a number of rows, such as ``UPDATE 5``.
_COUNT_IN_TAG = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class Columns:
    """The columns of a statement, as the server describes them without running it.

    Attributes:
        names: as a client sees them; two names may be equal.
        types: names of their types, as the launching session writes them.
        oids: of these types.
    """

    names: Sequence[str]
    types: Sequence[str]
    oids: Sequence[int]


def no_rows(returns: Returns) -> ErrorReport:
    """The error of a statement without rows if its task wants rows; the same as in ``run_v1``."""
    return ErrorReport("42601", f'the task has returns="{returns}", but its statement returns no rows')


def unreadable(type_name: str) -> ErrorReport:
    """The error of a statement with a column that cannot be read from its background worker."""
    return ErrorReport(
        "0A000",
        f"rows with a column of the type {type_name} cannot be read from a background worker",
        {"message_hint": "Cast the column to text or jsonb, or select its fields."},
    )


def counted(tag: str, rows: int | None) -> StandaloneResult:
    """The number of returned or changed rows in a command tag; 0 if it has none."""
    if rows is None:
        found = _COUNT_IN_TAG.search(tag)
        rows = int(found[1]) if found else 0
    return StandaloneResult("count", tag, rows)


def with_rows(
    returns: Returns, tag: str, columns: Columns, texts: list[str], max_result_bytes: int
) -> Returned | Raised:
    """Make a result of printed rows, or the error that they are too large; the statement is not undone."""
    kept = texts if returns == "rows" else texts[:1]
    if sum(len(text.encode()) for text in kept) > max_result_bytes:
        return Raised(_too_large(max_result_bytes))
    names = "{" + ",".join(f"{as_json(name)}:null" for name in columns.names) + "}"
    types = b"".join(struct.pack("!Ii", oid, -1) for oid in columns.oids)
    return Returned(
        StandaloneResult(returns, tag, len(texts), names, struct.pack("!i", len(columns.oids)) + types, kept)
    )


def _too_large(max_result_bytes: int) -> ErrorReport:
    return ErrorReport(
        "54000",
        f"the result is larger than pgbg_max_result_bytes ({max_result_bytes} bytes)",
        {
            "message_detail": "The statement ran outside a transaction, and its effects stay.",
            "message_hint": "The statement ran outside a transaction, and its effects stay. Return fewer rows, write "
            "them to a table, or raise pgbg_max_result_bytes.",
            "table_name": "celery_pgbg.outcome",
        },
    )
