"""The end of a statement with ``atomic=False``, read by its launching session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from celery_pgbg.database.sessions import Session
from celery_pgbg.database.values import from_exception, is_of_worker
from celery_pgbg.execution import queries
from celery_pgbg.execution.alone.record import StandaloneRecords
from celery_pgbg.execution.alone.rows import Columns, counted, with_rows
from celery_pgbg.execution.records.endings import StandaloneResult
from celery_pgbg.handles import Handle
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Lost, Raised, Returned
from celery_pgbg.texts import as_json

UNKNOWN = "the statement ran outside a transaction and may have partly completed"

#: The format of rows, readable for every session.
_STYLES = {"datestyle": "ISO", "intervalstyle": "postgres"}

#: Command tags that end in a number of rows.
_COUNTING = {"SELECT": "SELECT {}", "INSERT": "INSERT 0 {}", "UPDATE": "UPDATE {}", "DELETE": "DELETE {}"} | {
    "MERGE": "MERGE {}",
    "FETCH": "FETCH {}",
}

#: First words of queries with another command tag.
_TAGS_OF_QUERIES = {"WITH": "SELECT", "VALUES": "SELECT", "TABLE": "SELECT"}


@dataclass(frozen=True)
class _Info:
    """pg_background's report on a statement's end, from 2.0 on; that of 1.9 and 1.10 has no time."""

    command_tag: str | None
    row_count: int
    succeeded: bool


class StandaloneResults(StandaloneRecords):
    """A session that reads the result, the error and the messages of its statement."""

    def __init__(self, open_session: Callable[[], Session], order: Order) -> None:
        super().__init__(open_session, order)
        #: The statement's columns; empty if it returns no rows, None if unknown.
        self._columns: Columns | None = None
        self._statement = ""
        self.notices: list[tuple[str, str]] = []

    @property
    def _wants_rows(self) -> bool:
        return self._order.returns in ("rows", "row", "value")

    def result_of(self, handle: Handle) -> Returned | Raised | Lost:
        """Read the result or the error of a stopped background worker, which ends its handle.

        It has succeeded only if its result can be read to the end, or pg_background says so.

        Returns:
            After a success, the end has a ``StandaloneResult``.
        """
        info, error = self._info(handle), None
        if self.capabilities.function("error_info"):
            error = self._error_info(handle)
        try:
            return self._returned(info, *self._consume(handle))
        except psycopg.Error as exc:
            if exc.sqlstate is None:
                raise
            if is_of_worker(exc):
                return Raised(from_exception(exc))
            if error is not None:
                return Raised(error)
            if info is not None and info.succeeded and not self._wants_rows:
                return self._returned(info, info.row_count, None)
            return Lost(f"its result cannot be read ({exc.diag.message_primary}); {UNKNOWN}", "unknown")

    def _info(self, handle: Handle) -> _Info | None:
        if not self.capabilities.function("result_info"):
            return None
        with self._exclusive() as session:
            query = queries.query("result_info").format(**self._names("result_info"))
            row = session.execute(query, {"pid": handle.pid, "cookie": handle.cookie}).fetchone()
            return _Info(*row) if row else None

    def _returned(self, info: _Info | None, rows: int, said: str | list[str] | None) -> Returned | Raised:
        """Make the stored form of a success.

        Args:
            info: pg_background's report.
            rows: the number of rows.
            said: the command tag if it has no columns, the rows if they are wanted.
        """
        tag = self._tag_of(info, rows, said if isinstance(said, str) else None)
        if isinstance(said, list):
            assert self._columns is not None
            assert self._order.returns is not None
            return with_rows(self._order.returns, tag, self._columns, said, self._order.max_result_bytes)
        if self._order.returns == "count":
            return Returned(counted(tag, rows if said is None else None))
        return Returned(StandaloneResult(command_tag=tag))

    def _reading(self) -> sql.Composed:
        """The query that reads the result."""
        names = self._names("result")
        if self._columns and self._columns.types:
            # Types as the server wrote them.
            types = [sql.SQL(name) for name in self._columns.types]  # pyright: ignore[reportArgumentType]
            columns = [sql.SQL("{} {}").format(sql.Identifier(f"c{n}"), name) for n, name in enumerate(types)]
            names |= {"columns": sql.SQL(", ").join(columns), "value": sql.SQL("NULL")}
        return queries.query("consume_rows" if self._wants_rows else "consume_result").format(**names)

    def _consume(self, handle: Handle) -> tuple[int, str | list[str] | None]:
        """Read the result; returns the number of rows, and the rows if wanted, or the tag if there are no columns."""
        with self._exclusive() as session:
            self._make_safe(session, self.capabilities)
            with self._taking_notices(session):
                row = session.execute(self._reading(), {"pid": handle.pid, "cookie": handle.cookie}).fetchone()
            assert row is not None
            return row[0], row[1]

    @contextmanager
    def _taking_notices(self, session: Session) -> Iterator[None]:
        """Take the statement's messages from the queue, if the task asks for them; INFO always."""
        session.add_notice_handler(self._take_notice)
        try:
            with session.transaction():
                wanted = {n: v for n, v in self._order.settings.items() if n.lower() == "client_min_messages"}
                session.execute(queries.query("set_locally"), {"settings": as_json({**wanted, **_STYLES})})
                yield
        finally:
            session.remove_notice_handler(self._take_notice)

    def _take_notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        severity = diagnostic.severity_nonlocalized or diagnostic.severity or "NOTICE"
        self.notices.append((severity, diagnostic.message_primary or ""))

    def _tag_of(self, info: _Info | None, rows: int, tag: str | None) -> str:
        if (
            tag is not None
            and (info is None or self._columns is not None)
            and not (self._columns and self._columns.names)
        ):
            return tag
        word = info.command_tag if info and info.command_tag else _first_word(self._statement)
        word = _TAGS_OF_QUERIES.get(word, word)
        return _COUNTING.get(word, word).format(rows)


def _first_word(statement: str) -> str:
    words = statement.split()
    return words[0].upper() if words else ""
