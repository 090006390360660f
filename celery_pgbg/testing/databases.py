"""Databases that live as long as a test run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import psycopg
from psycopg import conninfo, sql

from celery_pgbg.database import schema
from celery_pgbg.database.results import close_stores
from celery_pgbg.runners import close_runners


@contextmanager
def scratch_database(server_dsn: str) -> Iterator[str]:
    """Make a database with the extension and our schema; drop it at the end, whoever is connected.

    Args:
        server_dsn: of a superuser; its database is only used to make the other.

    Yields:
        The DSN of the new database, a URL.
    """
    name = f"pgbg_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        dsn = as_url(server_dsn, dbname=name)
        with psycopg.connect(dsn, autocommit=True) as session:
            schema.install(session)
        yield dsn
    finally:
        # Sessions of this process would try to come back.
        close_runners()
        close_stores()
        with psycopg.connect(server_dsn, autocommit=True) as session:
            session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def as_url(dsn: str, **changes: str) -> str:
    """Write a DSN as a URL, with parts of it replaced: user, password, host, port, dbname or another parameter."""
    parts = {key: str(value) for key, value in {**conninfo.conninfo_to_dict(dsn), **changes}.items()}
    user, password = (quote(parts.pop(key, ""), safe="") for key in ("user", "password"))
    host, port, dbname = parts.pop("host", ""), parts.pop("port", ""), quote(parts.pop("dbname", ""), safe="")
    login = f"{user}{':' if password else ''}{password}@" if user else ""
    # A folder of sockets has no place in the address.
    if "/" in host or "," in host or ":" in host:
        parts |= {"host": host}
        host = ""
    where = f"{host}:{port}" if port and host else host
    if port and not host:
        parts["port"] = port
    rest = "&".join(f"{key}={quote(value, safe='')}" for key, value in parts.items())
    return f"postgresql://{login}{where}/{dbname}{'?' if rest else ''}{rest}"
