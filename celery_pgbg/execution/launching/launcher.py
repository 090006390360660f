"""The launcher: one session that launches background workers, for one order or for a pool of orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql

from celery_pgbg.database import queries as database_queries
from celery_pgbg.database.arrays import as_array
from celery_pgbg.database.preparation import Prepared, prepare
from celery_pgbg.database.sessions import Session, is_dead
from celery_pgbg.execution import queries
from celery_pgbg.execution.control.stopping import store_cancel
from celery_pgbg.execution.launching.handle_session import DETACH_BATCH, HandleSession
from celery_pgbg.execution.launching.launches import (
    Launch,
    Launched,
    Placement,
    Sight,
    Unfit,
    fetch,
    fetch_all,
    order_parameters,
)
from celery_pgbg.execution.launching.launching_session import MISFIT
from celery_pgbg.execution.launching.reusable import ReusableWorkers
from celery_pgbg.execution.launching.walks import walk_as_json
from celery_pgbg.execution.records.attempts import attempts_as_arrays, terminate
from celery_pgbg.handles import Attempt, Handle
from celery_pgbg.orders import Identity, Order
from celery_pgbg.texts import as_json

T = TypeVar("T")

_ROW_SECURITY = "row_security"

#: The state until the server has answered.
_UNKNOWN = Placement(0, "placed", None, 0)


class Launcher(HandleSession):
    """Launches atomic statements, and has their handles; any thread may call."""

    def __init__(self, open_session: Callable[[], Session], max_launches: int | None = None) -> None:
        super().__init__(open_session, max_launches)
        self._reusable = ReusableWorkers()
        self._identity: Identity | None = None

    def _forget_all(self) -> None:
        super()._forget_all()
        self._identity = None
        self._reusable.clear()

    # --- launching ---------------------------------------------------------------------------

    def launch(self, order: Order, sending: Callable[[], None] = lambda: None) -> Launch:
        """Launch an attempt unless it has ended or runs already. Waits only for the server's answer.

        Args:
            order: the attempt's order.
            sending: called before the server is asked to launch.

        Raises:
            BindingError: the query and its arguments do not fit.
            TaskDefinitionError: there is no statement, or it cannot run in a task.
            SessionLost: the connection died; the attempt may run or not.
            ConfigurationError: extension, schema or privilege are missing.
            psycopg.Error: the server's error about the statement's syntax, or about the task's ``settings``.
        """
        with self._exclusive() as session:
            self._detach_done(session, at_least=DETACH_BATCH)
            prepared = self._fitted(prepare(session, order), order)
            sending()
            return self._twice(session, lambda: self._launch(session, order, prepared))

    def _twice(self, session: Session, launch: Callable[[], T]) -> T:
        """Launch; if extension or schema were dropped under us, and perhaps made again elsewhere, launch again."""
        try:
            return launch()
        except (*MISFIT, errors.InvalidSchemaName):
            if is_dead(session):
                raise
            self._prepare(session)
        with self._fitting(session):
            return launch()

    def _launch(self, session: Session, order: Order, prepared: Prepared) -> Launch:
        parameters = {
            **order_parameters(order, prepared, self._message_here(session, order)),
            # a short statement must not be planned twice
            "is_plain_query": prepared.is_plain_query and not order.reuse,
            "settings": self._inherited_with(prepared.settings),
            "walk": order.walk and walk_as_json(order, order.walk, prepared),
        }
        launch = self._fetch_unless_full(session, Launch, "launch", parameters)
        if launch is None:
            return Launch("full")
        if launch.state == "launched" and launch.handle is not None:
            self._without_kept(launch.handle.pid)
        return launch

    def _fitted(self, prepared: Prepared, order: Order) -> Prepared:
        """Let the ``row_security`` of the task or its database begin with its statement: before, our tables are used.

        Not for a walk, whose statements stand between ours.
        """
        wanted = {**self._inherited, **prepared.settings}.get(_ROW_SECURITY)
        if wanted is None or order.walk:
            return prepared
        settings = {name: value for name, value in prepared.settings.items() if name != _ROW_SECURITY}
        setting = sql.SQL("SET LOCAL row_security = {}").format(sql.Literal(wanted)).as_string(None)
        preamble = ";\n".join(filter(None, [setting, prepared.preamble]))
        return replace(prepared, preamble=preamble, settings=settings)

    def _inherited_with(self, settings: Mapping[str, str]) -> str | None:
        inherited = {name: value for name, value in self._inherited.items() if name != _ROW_SECURITY}
        wanted = {**inherited, **settings}
        return as_json(wanted) if wanted else None

    def _fetch_unless_full(
        self, session: Session, kind: Callable[..., T], name: str, parameters: dict[str, Any]
    ) -> T | None:
        """Run a statement that launches; None if the server has no free slot.

        In that case idle background workers give up their slots.
        """
        ours = {
            "extension_schema": self.capabilities.schema,
            "launch_function": self.capabilities.name("launch"),
            "queue_bytes": self._queue_bytes,
        }
        try:
            self._make_safe(session, self.capabilities)
            return self._after_kept(session, lambda: fetch(session, kind, name, {**ours, **parameters}))
        except (errors.InsufficientResources, errors.ConfigurationLimitExceeded):
            self._dismiss_idle(session)
            self._detach_done(session)
            return None

    def _message_here(self, session: Session, order: Order) -> int | None:
        """Find the message that may end with the order: it must be in this database."""
        if order.message is None:
            return None
        if self._identity is None:
            row = session.execute(database_queries.query("database_identity")).fetchone()
            assert row is not None
            self._identity = row[0], row[1]
        identity, message_id = order.message
        return message_id if identity == self._identity else None

    def place(
        self, orders: Sequence[tuple[str, Order]], sending: Callable[[], None] = lambda: None
    ) -> list[Placement | Exception]:
        """Place orders, each with the name of its pool, for reusable background workers; all in one call.

        Args:
            orders: the orders with their pools.
            sending: called before the server is asked to place them.

        Returns:
            For each order its placement, or the error: ``Unfit``, or the errors of ``launch``.

        Raises:
            SessionLost: the connection died; the orders may be placed or not.
            ConfigurationError: extension, schema or privilege are missing.
            psycopg.Error: another transaction was in the way.
        """
        results: list[Placement | Exception] = []
        rows: dict[int, dict[str, Any]] = {}
        with self._exclusive() as session:
            for number, (pool, order) in enumerate(orders):
                try:
                    rows[number] = self._as_row(session, pool, order)
                    results.append(_UNKNOWN)
                except Exception as exc:
                    if is_dead(session):
                        raise
                    results.append(exc)
            sending()
            for number, placement in zip(rows, self._place(session, list(rows.values())), strict=True):
                results[number] = placement
        return results

    def _as_row(self, session: Session, pool: str, order: Order) -> dict[str, Any]:
        prepared = prepare(session, order)
        if prepared.settings or not self.may_reuse:
            raise Unfit(replace(order, settings=prepared.settings))
        prepared = self._fitted(prepared, order)
        return {"pool": pool, **order_parameters(order, prepared, self._message_here(session, order))}

    def _place(self, session: Session, rows: list[dict[str, Any]]) -> list[Placement | Exception]:
        """Place the orders together; if the server refuses them, one by one, to find the refused order."""
        if not rows:
            return []
        try:
            return list(self._place_together(session, rows))
        except (errors.SerializationFailure, errors.DeadlockDetected):
            raise
        except psycopg.Error as exc:
            if is_dead(session):
                raise
            if len(rows) == 1:
                return [exc]
            return [placement for row in rows for placement in self._place(session, [row])]

    def _place_together(self, session: Session, rows: list[dict[str, Any]]) -> list[Placement]:
        parameters = {name: as_array([row[name] for row in rows]) for name in rows[0]}
        try:
            return fetch_all(session, Placement, "place_work", parameters)
        except (errors.UndefinedFunction, errors.InvalidSchemaName):
            # Extension or schema were dropped under us, and perhaps made again elsewhere.
            self._prepare(session)
            return fetch_all(session, Placement, "place_work", parameters)

    def look(self, placed: Sequence[tuple[str, Attempt]]) -> list[Sight]:
        """Read the state of placed orders, each with its pool; records which background worker has each order."""
        with self._exclusive() as session:
            attempts = attempts_as_arrays([attempt for _, attempt in placed])
            parameters = {**attempts, "pools": as_array(pool for pool, _ in placed)}
            return fetch_all(session, Sight, "look_at_work", parameters)

    def launch_reusable(self, pool: str) -> Handle | None:
        """Launch a background worker for the orders of a pool; None if the server has no free slot."""
        with self._exclusive() as session:
            parameters = {
                "pool": pool,
                "application_name": "pgbg reusable",
                "settings": self._inherited_with({}),
            }
            launched = self._twice(
                session, lambda: self._fetch_unless_full(session, Launched, "launch_reusable", parameters)
            )
            if launched is None:
                return None
            self._without_kept(launched.handle.pid)
            self._reusable.add(launched.handle, pool)
            return launched.handle

    def owns(self, handle: Handle) -> bool:
        """Whether this session has launched a reusable background worker, and has its handle."""
        return handle in self._reusable

    def settle_revoke(self, attempt: Attempt) -> bool:
        """Store the revoke of a stopped attempt as its outcome: no other delivery runs it again.

        Returns:
            False if it has an outcome, which stands.
        """
        with self._exclusive() as session:
            is_stored = store_cancel(session, attempt, "revoked")
            if is_stored:
                # Another delivery may have launched it after the stop.
                terminate(session, attempt, although_finished=True)
            return is_stored

    def detach(self, handle: Handle) -> None:
        """Forget a handle, also of a reusable background worker."""
        self._reusable.discard(handle)
        super().detach(handle)

    def flush(self) -> None:
        """Detach now all waiting handles, and those of ended reusable background workers."""
        with self._exclusive():
            if self._reusable.pools():
                self._done += self._reusable.take_ended(self.states())
            super().flush()

    def _dismiss_idle(self, session: Session) -> None:
        """End idle reusable background workers now, because other tasks need their slots."""
        if pools := self._reusable.pools():
            session.execute(queries.query("dismiss"), {"pools": pools})
