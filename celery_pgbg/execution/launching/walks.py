"""The description of a walk for its background worker, and the ends after which another one may continue."""

from __future__ import annotations

import re

from celery_pgbg.database.preparation import Prepared
from celery_pgbg.orders import Order, Walk
from celery_pgbg.outcomes import ErrorReport
from celery_pgbg.texts import as_json

#: Temporary failures, by class of SQLSTATE or whole SQLSTATE: lost connections, rollbacks of transactions, resources
#: that were missing, operators and time limits, system errors; a transaction that took too long, a lock that took too
#: long (commits that notify wait for each other), a crash.
_PASSING = ("08", "40", "53", "57", "58", "25P04", "55P03", "XX")


def is_passing(report: ErrorReport) -> bool:
    """Whether a batch that failed with this SQLSTATE, without a stored outcome, may succeed when repeated."""
    return report.sqlstate.startswith(_PASSING)


def walk_as_json(order: Order, walk: Walk, prepared: Prepared) -> str:
    """Write the argument of ``walk_v1``: the statements in pieces, with the range of each batch between them."""
    statement = ";\n".join(filter(None, (prepared.preamble, prepared.statement)))
    split = walk.split and {"id": walk.split[0], "part": walk.split[1], "parts": walk.split[2]}
    return as_json(
        {
            "walk_id": walk.walk_id,
            "task_name": order.task_name,
            "table": walk.table,
            "key": walk.key,
            "statement": _pieces(statement, walk.mark),
            "batch_seconds": walk.batch_seconds,
            "max_batch_rows": walk.max_batch_rows,
            "max_replication_lag": walk.max_replication_lag,
            "yields": walk.yields,
            "wait_while": walk.wait_while,
            "split": split,
            "message": walk.message,
            "notify": order.notify,
        }
    )


def _pieces(statement: str, mark: str) -> list[dict[str, str | bool | None]]:
    texts = re.split(rf"{mark}_([^\W\d][\w$]*)?_", statement)
    pieces: list[dict[str, str | bool | None]] = [
        {"text": text, "alias": alias} for text, alias in zip(texts[0:-1:2], texts[1::2], strict=True)
    ]
    return [*pieces, {"text": texts[-1], "is_last": True}]
