"""The session that launches one statement with ``atomic=False``: its columns before, its invalid index after."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import psycopg
from psycopg import errors, generators, pq, sql

from celery_pgbg.database.preparation import prepare
from celery_pgbg.database.roles import take_role
from celery_pgbg.database.sessions import Session
from celery_pgbg.database.values import to_exception
from celery_pgbg.errors import ConfigurationError
from celery_pgbg.execution import queries
from celery_pgbg.execution.alone.invalid_indexes import IndexBuild, drop_invalid_indexes, find_build, invalid_indexes
from celery_pgbg.execution.alone.results import StandaloneResults
from celery_pgbg.execution.alone.rows import Columns, no_rows, unreadable
from celery_pgbg.handles import Handle
from celery_pgbg.orders import Order

logger = logging.getLogger(__name__)

#: How long the look at the statement's columns may wait for a lock. Without the columns it is launched anyway.
_DESCRIBE_SETTINGS = {"lock_timeout": "1s"}

#: The drop of an invalid index waits for every transaction that uses its table, and new transactions wait behind it.
_DROP_SETTINGS = {"lock_timeout": "5s"}

#: The type of a function without a result.
_VOID = "void"


class StandaloneLauncher(StandaloneResults):
    """A launcher for one statement with ``atomic=False``."""

    #: Without a gate, a statement that ends at once may get the PID of a kept handle, which then ends. Another kept
    #: handle must stay.
    _kept_handles = 2

    def __init__(self, open_session: Callable[[], Session], order: Order) -> None:
        super().__init__(open_session, order)
        self._is_described = False
        self._build: IndexBuild | None = None
        self._invalid_before: set[int] = set()
        #: Quoted names of the indexes that were dropped after the statement's end.
        self.dropped: list[str] = []

    def launch_now(self) -> Handle | None:
        """Launch at top level; None if the server has no free slot.

        From here on the session acts as the task's role, because the handle belongs to that role.

        Raises:
            ConfigurationError: that role may not launch, or the extension does not fit the server's files.
        """
        order = self._order
        with self._exclusive() as session:
            statement = self._statement = prepare(session, order).statement
            if order.role is not None:
                take_role(session, order.role)
            if not self._is_described:
                self._prepare_build(session, statement)
                self._columns = self._describe(session, statement)
                self._is_described = True
            statement = self._readable(session, statement)
            self._check_rows(session, statement)
            try:
                with self._fitting(session):
                    handle = self._launch_statement(session, statement)
            except errors.InsufficientResources:
                self.may_have_launched = False
                return None
            except errors.InsufficientPrivilege as exc:
                if order.role is None:
                    raise
                raise ConfigurationError(
                    f"role {order.role!r} may not launch background workers, but must launch the one of a task with "
                    f"atomic=False ({exc.diag.message_primary}): run `celery -A yourproject pgbg install "
                    f"--grant-to {order.role}` as a superuser"
                ) from exc
            self._without_kept(handle.pid)
            return handle

    def _prepare_build(self, session: Session, statement: str) -> None:
        """If the statement builds an index, list the invalid indexes, and drop its leftover if the task wants that.

        Raises:
            psycopg.Error: such an index cannot be dropped.
        """
        self._build = find_build(statement)
        if self._build is None:
            return
        with session.transaction():
            self._set_locally(session, _DROP_SETTINGS if self._order.retry_invalid else {})
            if self._order.retry_invalid:
                for name in drop_invalid_indexes(session, self._build):
                    logger.warning("%s: dropped the invalid index %s, to build it again", self._order.attempt, name)
            self._invalid_before = set(invalid_indexes(session, self._build))

    def left_invalid(self) -> list[str]:
        """The invalid indexes that the statement has left, by their quoted names."""
        if self._build is None:
            return []
        with self._exclusive() as session, session.transaction():
            self._set_locally(session, {})
            found = invalid_indexes(session, self._build)
            return [name for oid, name in found.items() if oid not in self._invalid_before]

    def drop_left(self, names: list[str]) -> bool:
        """Drop the invalid indexes that the statement has left, if the task wants that and they can be locked soon."""
        if not self._order.retry_invalid:
            return False
        try:
            with self._exclusive() as session, session.transaction():
                self._set_locally(session, _DROP_SETTINGS)
                for name in names:
                    # Quoted by the server.
                    session.execute(f"DROP INDEX {name}".encode())
        except psycopg.Error as exc:
            if exc.sqlstate is None:
                raise
            logger.warning("%s: %s cannot be dropped: %s", self._order.attempt, ", ".join(names), exc)
            return False
        self.dropped = names
        return True

    def _launch_statement(self, session: Session, statement: str) -> Handle:
        self._make_safe(session, self.capabilities)
        query = queries.query("launch_standalone").format(**self._names("launch"))
        settings = {**self._order.settings, "application_name": self._order.application_name}
        parameters = {"statement": statement, "settings": self._inherited_with(settings)}
        self.may_have_launched = True
        row = self._after_kept(session, lambda: session.execute(query, parameters).fetchone())
        assert row is not None
        return Handle(row[0], row[1])

    def _check_rows(self, session: Session, statement: str) -> None:
        """If rows are wanted, check that they can be read, before anything runs.

        Raises:
            psycopg.Error: the server does not name the columns, there are none, or a type such as record is unreadable
                for other sessions.
        """
        if not self._wants_rows:
            return
        if self._columns is None:
            self._columns = self._ask_for_columns(session, statement)
        if not self._columns.names:
            assert self._order.returns is not None
            raise to_exception(no_rows(self._order.returns))
        found = session.execute(queries.query("pseudo_types"), {"type_oids": self._columns.oids}).fetchone()
        if found:
            raise to_exception(unreadable(found[0]))

    def _describe(self, session: Session, statement: str) -> Columns | None:
        """Learn the types of the statement's columns without running it.

        Returns:
            None if the server refuses, for a reason that the launch will report, or if its tables are locked.
        """
        try:
            return self._ask_for_columns(session, statement)
        except psycopg.Error as exc:
            if exc.sqlstate is None:
                raise
            logger.debug("%s: the columns of its result are unknown: %s", self._order.attempt, exc)
            return None

    def _ask_for_columns(self, session: Session, statement: str) -> Columns:
        with session.transaction():
            self._set_locally(session, _DESCRIBE_SETTINGS)
            session.pgconn.send_prepare(b"", statement.encode())
            _results(session)
            session.pgconn.send_describe_prepared(b"")
            [described] = _results(session)
            places = range(described.nfields)
            names = [(described.fname(place) or b"").decode() for place in places]
            oids = [described.ftype(place) for place in places]
            rows = session.execute(queries.query("type_names"), {"type_oids": oids})
            return Columns(names, [name for (name,) in rows], oids)

    def _readable(self, session: Session, statement: str) -> str:
        """Rewrite a query with an unreadable column of type void, so that its end or rows can be known.

        Before pg_background 2.0 only a result that was read to its end proves success.
        """
        described = self._columns
        if described is None or _VOID not in described.types:
            return statement
        if self.capabilities.function("result_info") and not self._wants_rows:
            return statement
        columns = [sql.Identifier(f"c{number}") for number in range(len(described.types))]
        values = [
            sql.SQL("{}::pg_catalog.text").format(column) if name == _VOID else column
            for column, name in zip(columns, described.types, strict=True)
        ]
        bare = sql.SQL(statement.rstrip().rstrip(";"))  # pyright: ignore[reportArgumentType] - the task's own
        # It may end in a comment.
        query = sql.SQL("(") + bare + sql.SQL("\n) AS statement ({})").format(sql.SQL(", ").join(columns))
        wrapping = queries.query("without_void").format(values=sql.SQL(", ").join(values), query=query)
        wrapped = wrapping.as_string(session)
        if (found := self._describe(session, wrapped)) is None:
            return statement
        self._columns = replace(found, names=described.names)
        return wrapped


def _results(session: Session) -> list[pq.abc.PGresult]:
    """Wait for the answer to a request sent on the session's own connection.

    Raises:
        psycopg.Error: the server's error.
    """
    results: list[pq.abc.PGresult] = session.wait(generators.execute(session.pgconn))
    for result in results:
        if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            raise errors.error_from_result(result, encoding="utf-8")
    return results
