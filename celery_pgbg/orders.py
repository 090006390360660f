"""Orders: what a task wants to have executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from celery_pgbg.handles import Attempt, application_name
from celery_pgbg.outcomes import Returns

#: Identity of a database: the identity of its cluster, and its own.
Identity: TypeAlias = tuple[int, int]

#: A message of our broker: its database, and its row's id.
MessageRow: TypeAlias = tuple[Identity, int]


@dataclass(frozen=True)
class Walk:
    """How a batched statement walks a table.

    Attributes:
        walk_id: id of the task that began it; what the table keeps its position by.
        table: name of the table; the server resolves it by the task's search path.
        key: columns of a unique index, in its order.
        mark: marks the place of the batch's range in the query; followed by ``_``, perhaps an alias of the table, and
            ``_``.
        batch_seconds: time that a batch should take.
        max_batch_rows: largest number of rows in a batch.
        max_replication_lag: the next batch waits while a standby is more than these seconds behind; None does not
            check.
        yields: whether batches get smaller and pause while other sessions wait for their locks.
        wait_while: condition in SQL; the next batch waits while it is true. None for none.
        split: name of a split of the table, which part of it this is (from 1), and of how many; None for the whole.
        message: the fields to send the task again.
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
        attempt: the attempt that the statement belongs to.
        task_name: Celery's name of the task.
        nodename: name of the Celery worker that asks, for people to read.
        query: whatever psycopg takes as a query.
        params: arguments by name, or a sequence for ``%s``; None only for a template string.
        returns: shape of the value; None for rows where there are rows, else the count.
        atomic: True: the statement and its outcome are in one transaction. False: the statement stands alone, outside
            a transaction block.
        reuse: whether the task may share a background worker, one task after another.
        role: the role to run as, or None for the connection's own.
        settings: configuration parameters of PostgreSQL for this statement.
        max_result_bytes: size limit of the rows.
        notify: whether the outcome is announced by NOTIFY.
        ignore_result: whether Celery keeps no result of the task; the outcome is stored anyway.
        retry_invalid: with ``atomic=False``: first drop an invalid index that an earlier run has left.
        walk: how to run in batches, each a transaction with its position; None for one transaction.
        message: the message in our broker that asked for the task, if nothing is left to do after a success. The
            statement's transaction then deletes the message.
        task_meta: what Celery would store for a success besides the value, and for how long, if the result backend
            reads the outcomes of this database. None: Celery stores a result.
        read: makes the task's value from the statement's value and ``returns``; None changes nothing.
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
