"""The task class whose statement runs batch by batch, and its decorator."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from celery import group
from kombu.serialization import dumps

from celery_pgbg.batches.marks import mark_batches
from celery_pgbg.batches.options import HEADER, MOST_PARTS, check_options, key_columns, read_header
from celery_pgbg.configuration import settings_of
from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.orders import Order, Walk
from celery_pgbg.tasks.decorator import sql_task
from celery_pgbg.tasks.task import SQLTask


class BatchedSQLTask(SQLTask):
    """A task whose statement runs once for each batch of a table's rows.

    The body returns a statement with ``{batch}`` in place of the condition for the rows of a batch. One background
    worker walks the table in the order of its key, and commits each batch together with its position. So after an
    interruption nothing is done twice or left out: the next delivery continues after the last batch.

    The task returns a dict: ``rows`` that the statement changed, ``batches``, and the ``seconds`` that they took.
    """

    abstract = True

    #: The table to walk, as a statement would name it.
    table: ClassVar[str | None] = None
    #: The column, or the columns in their order, of a unique index.
    key: ClassVar[str | Sequence[str] | None] = None
    #: Seconds that a batch should take; the number of rows is adjusted to it.
    batch_seconds: ClassVar[float] = 0.5
    #: Largest number of rows in a batch.
    max_batch_rows: ClassVar[int] = 100_000
    #: The next batch waits while the slowest standby is more than these seconds behind. None: no check.
    max_replication_lag: ClassVar[float | None] = None
    #: Whether batches get smaller and are followed by pauses, 5 seconds at most, while other sessions wait for their
    #: locks.
    yields_to_waiters: ClassVar[bool] = True
    #: A condition in SQL; the next batch waits while it is true. None: no condition.
    wait_while: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the options of a class with a body."""
        super().__init_subclass__(**kwargs)
        if "body" in cls.__dict__:
            check_options(cls, f"task {cls.__dict__.get('name') or cls.__name__}")

    def make_order(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Order:
        """Combine the statement, its arguments, and the walk through the table.

        Raises:
            TaskDefinitionError: the body did not return a statement with ``{batch}``.
            TypeError: the arguments do not fit the body's parameters.
            BindingError: the message's header for the walk does not have our form.
        """
        order = super().make_order(args, kwargs)
        walk_id, split = read_header(self.name, (self.request.headers or {}).get(HEADER))
        mark = f"pgbg_{uuid.uuid4().hex}"
        assert self.table is not None
        walk = Walk(
            walk_id=walk_id or order.attempt.task_id,
            table=self.table,
            key=key_columns(self.key),
            mark=mark,
            batch_seconds=self.batch_seconds,
            max_batch_rows=self.max_batch_rows,
            max_replication_lag=self.max_replication_lag,
            yields=self.yields_to_waiters,
            wait_while=self.wait_while,
            split=split,
            message=self._message(args, kwargs) if settings_of(self.app).store_sql else None,
        )
        return replace(order, query=mark_batches(self.name, order.query, mark), walk=walk, message=None)

    def _message(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str]:
        """Encode the arguments as in a message, so that ``pgbg resume`` can send them again."""
        content_type, encoding, body = dumps((list(args), kwargs), self.serializer or self.app.conf.task_serializer)
        if isinstance(body, bytes):
            return {"content_type": content_type, "encoding": encoding, "base64": base64.b64encode(body).decode()}
        return {"content_type": content_type, "encoding": encoding, "body": body}

    def in_ranges(self, parts: int, *args: Any, **kwargs: Any) -> group:
        """Make a group of 1 - 1000 tasks; each walks a range of the table, of about equal size.

        The first task to start decides where the ranges begin and end.
        """
        if type(parts) is not int or not 1 <= parts <= MOST_PARTS:
            raise ValueError(f"{self.name}: parts must be a whole number in 1 ... {MOST_PARTS}, got {parts!r}")
        split = str(uuid.uuid4())
        headers = [{HEADER: {"split": split, "part": part + 1, "parts": parts}} for part in range(parts)]
        return group(self.s(*args, **kwargs).set(headers=header) for header in headers)


def batched_sql_task(*args: Any, **options: Any) -> Any:
    """Make a function into a batched SQL task of the current app.

    Used as ``@batched_sql_task(table="orders", key="id", ...)``; takes the options of ``BatchedSQLTask``, those of
    ``SQLTask`` but ``atomic``, ``reuse`` and ``returns``, and every option of Celery's tasks.
    """
    options.setdefault("base", BatchedSQLTask)
    if not issubclass(options["base"], BatchedSQLTask):
        raise TaskDefinitionError(
            f"batched_sql_task: base must be a subclass of BatchedSQLTask, got {options['base'].__name__}"
        )
    return sql_task(*args, **options)
