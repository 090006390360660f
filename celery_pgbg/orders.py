"""What a task wants executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from celery_pgbg.handles import Attempt, application_name
from celery_pgbg.outcomes import Returns

#: A database among all: that of its cluster, and its own.
Identity: TypeAlias = tuple[int, int]

#: A message of our broker: its database, and its row's id.
MessageRow: TypeAlias = tuple[Identity, int]


@dataclass(frozen=True)
class Walk:
    """How a batched statement goes through a table.

    Attributes:
        walk_id: id of the task that began it; what the table keeps its position by.
        table: as the server finds it by the task's search path.
        key: columns of a unique index, in its order.
        mark: stands in the query where the range of a batch goes; after it ``_``, perhaps an alias of the table,
            and ``_``.
        batch_seconds: time that a batch should take.
        max_batch_rows: rows that a batch has at most.
        max_replication_lag: seconds that a standby may be behind before the next batch, None for any.
        yields: whether batches get smaller and pause while others wait for their locks.
        wait_while: condition in SQL under which the next batch waits, None for none.
        split: name of a split of the table, which part of it this is (from 1), and of how many; None for the whole.
        message: what the task can be sent again with.
    """

    walk_id: str
    table: str
    key: tuple[str, ...]
    mark: str
    batch_seconds: float = 0.5
    max_batch_rows: int = 100_000
    max_replication_lag: float | None = None
    yields: bool = True
    wait_while: str | None = None
    split: tuple[str, int, int] | None = None
    message: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Order:
    """One attempt's statement, not yet bound to its arguments.

    Attributes:
        attempt: whose it is.
        task_name: Celery's name of the task.
        nodename: the Celery worker that asks, for people.
        query: whatever psycopg takes as a query.
        params: arguments by name, or a sequence for ``%s``; None only for a template string.
        returns: shape of the value; None for rows where there are rows, else the count.
        atomic: in a transaction with its outcome; False stands alone, outside a transaction block.
        reuse: may run in a background worker that has run another task before, and leave it to others.
        role: the role to run as, or None for the connection's own.
        settings: configuration parameters of PostgreSQL for this statement.
        max_result_bytes: size limit of the rows.
        notify: whether the outcome is announced by NOTIFY.
        ignore_result: Celery keeps no result of the task; its outcome is there nevertheless.
        retry_invalid: an index that an earlier run of a statement that stands alone has left invalid is dropped first.
        walk: in batches, each a transaction with how far it came; None for one transaction.
        message: what asked for it, of our broker, where nothing is left to do after success: it ends with that.
        task_meta: what Celery would store of a success besides the value, and for how long, where the result backend
            reads the outcomes of this database; None: it stores a result.
        read: makes the task's value of the statement's and of ``returns``; None leaves it as it is.
    """

    attempt: Attempt
    task_name: str
    nodename: str
    query: Any
    params: Mapping[str, Any] | tuple[Any, ...] | None = None
    returns: Returns | None = None
    atomic: bool = True
    reuse: bool = False
    role: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    max_result_bytes: int = 16 * 1024 * 1024
    notify: bool = True
    ignore_result: bool = False
    walk: Walk | None = None
    retry_invalid: bool = False
    message: MessageRow | None = None
    task_meta: Mapping[str, Any] | None = None
    read: Callable[[Any, Returns | None], Any] | None = None

    @property
    def application_name(self) -> str:
        """What ``pg_stat_activity`` shows."""
        return application_name(self.task_name, self.attempt)
