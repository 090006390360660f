"""Connections to PostgreSQL, and what a failure to get one means."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import conninfo
from psycopg.rows import TupleRow

from celery_pgbg.errors import ServerRefused, SessionLost

Session = psycopg.Connection[TupleRow]

#: Parts of libpq's messages for a refusal that time does not mend. A server with translated
#: messages is not recognised, and then tried again like one that is down.
_REFUSALS = ("password", "authentication failed", "does not exist", "no pg_hba.conf entry", "not permitted to log in")

#: Told to libpq unless the DSN says otherwise, so that a dead network is noticed within a minute.
_KEEPALIVES = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 5}


def connect(dsn: str, *, application_name: str, connect_timeout: float, **options: Any) -> Session:
    """Open a session in autocommit mode.

    Raises:
        ServerRefused: it would refuse again: wrong password, no such database or role.
        SessionLost: it may succeed later: the server is down, starting, or full.
    """
    given = conninfo.conninfo_to_dict(dsn)
    defaults = {**_KEEPALIVES, "connect_timeout": max(1, round(connect_timeout))}
    defaults = {key: value for key, value in defaults.items() if key not in given}
    parameters: dict[str, Any] = {**defaults, **options, "application_name": application_name}
    try:
        return psycopg.connect(dsn, autocommit=True, **parameters)
    except psycopg.OperationalError as exc:
        message = str(exc).strip()
        where = f"{given.get('host', 'the local server')}:{given.get('port', 5432)}"
        if "FATAL" in message and any(part in message for part in _REFUSALS):
            raise ServerRefused(f"{where} refused the connection: {message}") from exc
        raise SessionLost(f"no connection to {where}: {message}") from exc


def is_dead(session: Session) -> bool:
    """Tell whether a session can no longer be used."""
    return session.closed or session.broken
