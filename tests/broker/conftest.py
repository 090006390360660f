"""A broker in a database of its own, and connections to it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from kombu import Connection
from psycopg import sql

from celery_pgbg.broker.station import close_stations
from celery_pgbg.database import schema
from celery_pgbg.testing.databases import as_url


@pytest.fixture(scope="session")
def new_broker_database(new_database: Callable[[], str]) -> Callable[[], str]:
    """Make a database with our schema."""

    def make() -> str:
        dsn = new_database()
        with psycopg.connect(dsn, autocommit=True) as session:
            schema.install(session)
        return dsn

    return make


@pytest.fixture(scope="package")
def broker_dsn(new_broker_database: Callable[[], str]) -> str:
    """The database of most tests."""
    return new_broker_database()


@pytest.fixture
def server(broker_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A plain session in that database, which is empty before the test."""
    with psycopg.connect(broker_dsn, autocommit=True) as session:
        session.execute("TRUNCATE celery_pgbg.message, celery_pgbg.consumer, celery_pgbg.exchange CASCADE")
        session.execute("DELETE FROM celery_pgbg.queue WHERE name <> 'celery_pgbg.outbox'")
        yield session


@pytest.fixture
def connect(broker_dsn: str, server: Any) -> Iterator[Callable[[], Connection]]:
    """Make kombu's connections; all are closed at the end, and the sessions of this process too."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(Connection(f"pgbg+{broker_dsn}"))
    close_stations()


@pytest.fixture
def connection(connect: Callable[[], Connection]) -> Connection:
    """One of them."""
    return connect()


@pytest.fixture
def role(server: Any, broker_dsn: str) -> Iterator[Callable[..., str]]:
    """Make a role that may log in; returns its DSN."""
    made: list[str] = []

    def make(**rights: list[str]) -> str:
        name = f"pgbg {uuid.uuid4().hex[:8]}"
        made.append(name)
        server.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        schema.install(server, **{right: [name] for right in rights})
        return as_url(broker_dsn, user=name)

    yield make
    for name in made:
        server.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(name)))
        server.execute(sql.SQL("DROP ROLE {0}").format(sql.Identifier(name)))
