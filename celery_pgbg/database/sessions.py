"""Connections to PostgreSQL, and the meaning of a failure to connect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo, sql
from psycopg.rows import TupleRow

from celery_pgbg.database import queries
from celery_pgbg.database.backoff import Backoff
from celery_pgbg.database.forks import let_go_after_fork
from celery_pgbg.database.refusals import is_refused_for_good
from celery_pgbg.errors import ConfigurationError, ServerRefused, SessionLost

Session = psycopg.Connection[TupleRow]

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Whether it was logged that ``idle_session_timeout`` is set.
_logged_idle_limit: list[bool] = []

#: With it off, a backslash in a plain string is an escape, which our parser and functions do not expect.
_STRINGS = "standard_conforming_strings"

#: The parameters that our statements rely on, and that the server reports unasked: psycopg reads no other styles.
_OWN = {_STRINGS: "on", "DateStyle": "ISO", "IntervalStyle": "postgres"}

#: Whether it was logged that ``standard_conforming_strings`` is off.
_logged_old_strings: list[bool] = []

#: The beginning of libpq's message about an unknown parameter of a DSN.
_NAMES_A_PARAMETER = ("invalid connection option", "invalid URI query parameter")

#: The beginnings of libpq's other messages, before they quote the DSN.
_CAUSES = (
    'missing "="',
    'end of string reached when looking for matching "]" in IPv6 host address',
    "invalid percent-encoded token",
    "unterminated quoted string",
    "forbidden value %00",
)

#: Defaults for libpq, so that a dead network is noticed within a minute: the first three while nothing is sent, else
#: the last, in milliseconds.
_KEEPALIVES = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 5, "tcp_user_timeout": 45_000}


class _BoundedSession(psycopg.Connection[TupleRow]):
    """A session whose calls end even if the server, or a pooler before it, never answers."""

    answer_timeout: float | None = None
    abandoned = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Defaults of the database or role that were replaced.
        self.replaced: dict[str, str] = {}

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """Wait as psycopg does, and give up after ``answer_timeout``. psycopg checks every tenth of a second."""
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        ready: Any = None
        silent_since = time.monotonic()
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                value: T = end.value
                return value
            ready = yield wanted
            if ready:
                silent_since = time.monotonic()
            elif self.abandoned:
                self._give_up("it was closed during a call")
            elif self.answer_timeout is not None and time.monotonic() - silent_since > self.answer_timeout:
                self._give_up(f"no answer within {self.answer_timeout:g} s")

    def _give_up(self, reason: str) -> None:
        self.pgconn.finish()
        raise psycopg.OperationalError(reason)


def connect(
    dsn: str, *, application_name: str, connect_timeout: float, answer_timeout: float | None = None, **options: Any
) -> Session:
    """Open a session in autocommit mode, with UTF-8, standard strings and styles, whatever its database's defaults are.

    Args:
        dsn: the server and database.
        application_name: the name for ``pg_stat_activity``.
        connect_timeout: seconds.
        answer_timeout: seconds without any answer after which a call gives up the session. None waits for ever.
        options: further parameters of libpq, which override the DSN.

    Raises:
        ConfigurationError: libpq cannot read the DSN.
        ServerRefused: the server would refuse again: wrong password, no such database or role.
        SessionLost: a later try may succeed: the server is down, starting, or full.
    """
    given = read_dsn(dsn)
    defaults = {**_KEEPALIVES, "connect_timeout": max(1, round(connect_timeout))}
    defaults = {key: value for key, value in defaults.items() if key not in given}
    parameters: dict[str, Any] = {**defaults, **options, "application_name": application_name}
    parameters["client_encoding"] = "utf8"
    where = f"{given.get('host', 'the local server')}:{given.get('port', 5432)}"
    try:
        session = _BoundedSession.connect(dsn, autocommit=True, **parameters)
    except psycopg.OperationalError as exc:
        message = str(exc).strip()
        if is_refused_for_good(exc, conninfo.make_conninfo(dsn, **parameters), connect_timeout):
            raise ServerRefused(f"{where} refused the connection: {message}") from exc
        raise SessionLost(f"no connection to {where}: {message}") from exc
    session.answer_timeout = answer_timeout
    let_go_after_fork(session)
    try:
        _replace_defaults(session)
    except psycopg.OperationalError as exc:
        session.close()
        raise SessionLost(f"no connection to {where}: {str(exc).strip()}") from exc
    return session


def _replace_defaults(session: _BoundedSession) -> None:
    """Set the parameters that our statements rely on, where the database or its role has other defaults."""
    for name, value in _OWN.items():
        found = session.info.parameter_status(name)
        # Of dates, the order of day and month may follow.
        if found is not None and found.split(",")[0] != value:
            session.replaced[name] = found
            session.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
    if session.replaced.pop(_STRINGS, None) and not _logged_old_strings:
        _logged_old_strings.append(True)
        logger.warning(
            "%s is off in database %r, but on for SQL tasks: write E'' where a backslash is an escape, also in "
            "functions that tasks call",
            _STRINGS,
            session.info.dbname,
        )


def note_replaced(session: Session, defaults: dict[str, str]) -> None:
    """Note defaults that were replaced later. The first of a parameter stands: it was not yet replaced."""
    if isinstance(session, _BoundedSession):
        session.replaced = {**defaults, **session.replaced}


def replaced_defaults(session: Session) -> dict[str, str]:
    """The parameters that we have replaced, which statements of tasks keep, with their values."""
    return dict(session.replaced) if isinstance(session, _BoundedSession) else {}


class Reconnection:
    """Opens one session again and again, but not more often than a back-off allows, however many callers ask.

    Args:
        open_session: makes a connected session.
    """

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open_session = open_session
        # Short: the callers wait longer after each failure themselves.
        self._backoff = Backoff(longest=1.0)
        self._next_try = 0.0
        self._failure = ""

    def open(self) -> Session:
        """Open the session. For one thread at a time.

        Raises:
            SessionLost: a later try may succeed; also if the last failure is too recent for another try.
            ServerRefused: the server would refuse again.
        """
        if time.monotonic() < self._next_try:
            raise SessionLost(self._failure)
        try:
            session = self._open_session()
        except SessionLost as exc:
            self._failure = str(exc)
            self._next_try = time.monotonic() + self._backoff.next()
            raise
        self._backoff.reset()
        return session


def abandon(session: Session) -> None:
    """Abort another thread's call on this session, and with it the session."""
    if isinstance(session, _BoundedSession):
        session.abandoned = True


def stay_idle(session: Session) -> None:
    """Protect a waiting session from ``idle_session_timeout``; logged once."""
    row = session.execute(queries.query("stay_idle")).fetchone()
    if row and not _logged_idle_limit:
        _logged_idle_limit.append(True)
        logger.info("idle_session_timeout is %s: sessions that listen or launch turn it off for themselves", row[0])


def plan_once(session: Session) -> None:
    """Let the server plan each prepared statement once, for any values. Never for a session that launches."""
    session.execute(queries.query("plan_once"))


def with_row_security(session: Session) -> Session:
    """Let a session use our tables, whose rows belong to roles, also where ``row_security`` is off by default."""
    session.execute("SET row_security = on")
    return session


def read_dsn(dsn: str) -> dict[str, Any]:
    """Take a DSN apart, without connecting.

    Raises:
        ConfigurationError: libpq cannot read it. The message quotes at most a parameter's name, because the rest may
            be the password.
    """
    try:
        given = dict(conninfo.conninfo_to_dict(dsn))
    except psycopg.ProgrammingError as exc:
        message = str(exc).strip()
        if not message.startswith(_NAMES_A_PARAMETER):
            message = next((cause for cause in _CAUSES if message.startswith(cause)), "it is malformed")
        raise ConfigurationError(f"libpq cannot read the DSN: {message}") from None
    for name in ("port", "connect_timeout"):
        # A list of hosts has a list of ports.
        if not all(number.strip().isdecimal() for number in str(given.get(name) or 0).split(",") if number):
            raise ConfigurationError(f"libpq cannot read the DSN: {name} must be a number, got {given[name]!r}")
    return given


def is_dead(session: Session) -> bool:
    """Check whether a session can no longer be used."""
    return session.closed or session.broken


def has_ended(session: Session) -> bool:
    """Check whether the server has ended an idle session, as far as its words have arrived, without waiting."""
    try:
        # The first call reads the server's last message, the second one the end of the connection.
        session.pgconn.consume_input()
        session.pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return is_dead(session)
