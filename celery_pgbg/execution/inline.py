"""Runs statements in a caller's session, inside its open transaction: for tests."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
from psycopg import errors, pq
from psycopg.rows import TupleRow, tuple_row

from celery_pgbg.database import schema
from celery_pgbg.database.preparation import Prepared, prepare
from celery_pgbg.database.values import StoredOutcome, from_exception
from celery_pgbg.errors import CannotRunInline, SchemaMissing
from celery_pgbg.execution import queries
from celery_pgbg.execution.launching.launches import order_parameters
from celery_pgbg.execution.launching.walks import walk_as_json
from celery_pgbg.execution.records.attempts import read_outcomes
from celery_pgbg.execution.waiting.watches import deliver
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Ending, Raised
from celery_pgbg.texts import as_json
from celery_pgbg.watch import Watch


class InlineRunner:
    """Runs an order like a background worker, with the same server function, and commits nothing.

    Any thread may call; orders run one after another.

    Args:
        connection: the connection with the transaction. Outside a transaction it gets one, which ``close`` rolls back.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._session = _Borrowed(connection)
        self._was_idle = self._status() == pq.TransactionStatus.IDLE
        self._lock = threading.RLock()

    def close(self) -> None:
        """Roll back the transaction, if we began it."""
        if self._was_idle and not self._session.closed:
            self._session.rollback()

    def run(self, order: Order, watch: Watch) -> Ending:
        """Run an atomic order, or its batches, in the calling thread; its effects stay in the transaction.

        An attempt that has ended returns its outcome again. Interruptions have no effect, because the calling thread
        is busy.

        Raises:
            CannotRunInline: the order is not atomic.
            BindingError: the query and its arguments do not fit.
            psycopg.Error: the connection is closed.
            ConfigurationError: this role may not use our schema.
        """
        if not order.atomic:
            raise CannotRunInline(
                f"{order.task_name}: with atomic=False its statement stands alone, outside a transaction; "
                "the fixture pgbg_worker can run it"
            )
        with self._lock:
            self._begin()
            try:
                with self._session.transaction():
                    prepared = prepare(self._session, order)
                    watch.accept(self._session.info.backend_pid)
                    outcome = self._outcome_of(order, prepared)
            except psycopg.Error as exc:
                if exc.sqlstate is None:
                    raise
                return Raised(from_exception(exc))
            deliver(watch, outcome)
            assert watch.ending is not None
            return watch.ending

    def _begin(self) -> None:
        if self._status() == pq.TransactionStatus.IDLE:
            self._session.execute("SELECT")

    def _status(self) -> pq.TransactionStatus:
        return pq.TransactionStatus(self._session.pgconn.transaction_status)

    def _outcome_of(self, order: Order, prepared: Prepared) -> StoredOutcome:
        task = {"task_id": order.attempt.task_id, "task_name": order.task_name, "attempt": order.attempt.number}
        ours = {"application_name": order.application_name, "celery_pgbg.task": as_json(task)}
        before = self._set_locally({**ours, **prepared.settings})
        parameters = {
            **order_parameters(order, prepared, message_id=None),
            "walk": walk_as_json(order, order.walk, prepared) if order.walk else None,
            "is_plain_query": prepared.is_plain_query,
        }
        self._run("walk_inline" if order.walk else "run_inline", parameters)
        [outcome] = read_outcomes(self._session, [order.attempt])
        self._session.execute(queries.query("defer_constraints"))
        self._set_locally(before)
        return outcome

    def _run(self, name: str, parameters: dict[str, Any]) -> None:
        """Call the server function; a database without our schema first gets the schema, within the transaction."""
        try:
            with self._session.transaction():
                self._session.execute(queries.query(name), parameters)
        except (errors.UndefinedFunction, errors.InvalidSchemaName):
            # An error of our own code: the statement's own errors are outcomes.
            try:
                with self._session.transaction():
                    schema.check_installed(self._session)
            except SchemaMissing:
                schema.install_within(self._session)
            self._session.execute(queries.query(name), parameters)

    def _set_locally(self, settings: dict[str, str]) -> dict[str, str]:
        """Set parameters until the end of the transaction; returns what they were."""
        row = self._session.execute(queries.query("current_settings"), {"names": list(settings)}).fetchone()
        self._session.execute(queries.query("set_locally"), {"settings": as_json(settings)})
        assert row is not None
        before: dict[str, str] = row[0]
        return before


class _Borrowed(psycopg.Connection[TupleRow]):
    """A second face of a connection: psycopg's own adapters, whatever its owner has registered there.

    Args:
        owner: stays the owner; nothing here closes it.
    """

    def __init__(self, owner: psycopg.Connection[Any]) -> None:
        pgconn = owner.pgconn
        handlers = pgconn.notice_handler, pgconn.notify_handler
        super().__init__(pgconn, row_factory=tuple_row)
        pgconn.notice_handler, pgconn.notify_handler = handlers
        self.lock = owner.lock
        # Names of prepared statements would meet the owner's.
        self.prepare_threshold = None

    def __del__(self, _warn: Any = None) -> None:
        """Not ours to close, so no warning that it is open."""
