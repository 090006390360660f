"""Finds the SQLSTATE of a refused connection, which libpq reveals only on request.

A failed connection has only a message, in the server's language. libpq writes SQLSTATEs in place of messages if that
is requested before it connects, but psycopg has no call for that. So a failed connection is tried once more, with
psycopg's own PGconn and one function of the same libpq.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import selectors
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import psycopg
from psycopg import errors, pq

#: Classes and codes of permanent refusals: wrong password, no such role, refused by pg_hba.conf; no such database; no
#: right to connect to it.
_FOR_GOOD = ("28", "3D000", "42501")

#: PgBouncer reports 08P01 for every refusal and also for temporary failures. Only its words differ, and they are
#: always English.
_POOLERS_CODE = "08P01"
_POOLERS_REFUSALS = ("authentication failed", "no such user", "no such database")

#: ``PQERRORS_SQLSTATE``, since libpq 12.
_SQLSTATE_ONLY = 3

#: libpq's separator after the severity of a server's message, in any language; its own messages have one space.
_AFTER_SEVERITY = ":  "

#: ``FATAL:  28P01`` in whatever language the first word is.
_CODE = re.compile(rb":  ([0-9A-Z]{5})$")

_EVENTS = {pq.PollingStatus.READING: selectors.EVENT_READ, pq.PollingStatus.WRITING: selectors.EVENT_WRITE}

_LIBPQ_OF = {"binary": "psycopg_binary.pq", "c": "psycopg_c.pq"}


def is_refused_for_good(failure: psycopg.OperationalError, conninfo: str, timeout: float) -> bool:
    """Check whether every tried server refused the connection for good.

    Connects once more if a server has answered. False also if the reason cannot be found.

    Args:
        failure: of the first try.
        conninfo: the parameters of that try.
        timeout: seconds for the second.
    """
    if failure.pgconn is not None and failure.pgconn.needs_password:
        return True
    if isinstance(failure, errors.ConnectionTimeout) or _AFTER_SEVERITY not in str(failure):
        return False
    codes = _codes(conninfo, timeout)
    if codes and all(code == _POOLERS_CODE for code in codes):
        return any(words in str(failure) for words in _POOLERS_REFUSALS)
    return bool(codes) and all(code is not None and code.startswith(_FOR_GOOD) for code in codes)


def _codes(conninfo: str, timeout: float) -> list[str | None]:
    """Connect once more, and read the SQLSTATE of each try; None for a try without one.

    Returns:
        Nothing if the connection succeeds now, takes too long, or libpq cannot be asked.
    """
    set_verbosity = _verbosity_setter()
    if set_verbosity is None:
        return []
    # its pgconn_ptr is not in psycopg's protocol
    connection: Any = pq.PGconn.connect_start(conninfo.encode())
    try:
        set_verbosity(connection.pgconn_ptr, _SQLSTATE_ONLY)
        if not _has_failed(connection, time.monotonic() + timeout):
            return []
        lines = [line for line in connection.error_message.split(b"\n") if line.strip() and not line.startswith(b"\t")]
    finally:
        connection.finish()
    found = [_CODE.search(line) for line in lines]
    return [match and match[1].decode() for match in found]


def _has_failed(connection: Any, deadline: float) -> bool:
    """Finish a connection attempt; False if it succeeds or takes too long."""
    while (status := pq.PollingStatus(connection.connect_poll())) is not pq.PollingStatus.OK:
        if status is pq.PollingStatus.FAILED:
            return True
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            return False
        # The socket may change.
        with selectors.DefaultSelector() as selector:
            selector.register(connection.socket, _EVENTS[status])
            selector.select(seconds)
    return False


@cache
def _verbosity_setter() -> Callable[[int | None, int], int] | None:
    """``PQsetErrorVerbosity`` of psycopg's libpq; None if it cannot be found."""
    try:
        if pq.__impl__ == "python":
            library = importlib.import_module("psycopg.pq._pq_ctypes").pq
        else:
            # A symbol is also looked up in the libraries that the module is linked with.
            library = ctypes.CDLL(str(importlib.import_module(_LIBPQ_OF[pq.__impl__]).__file__))
        function = library.PQsetErrorVerbosity
    except (ImportError, AttributeError, KeyError, OSError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_int]
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]
