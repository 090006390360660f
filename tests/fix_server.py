"""Servers: PostgreSQL with pg_background, Redis, RabbitMQ. Missing ones skip at home and fail in CI."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import NoReturn

import psycopg
import pytest
from psycopg import sql

from celery_pgbg.database import schema
from celery_pgbg.devserver import DevServer, DevServerError
from celery_pgbg.devserver.brokers import Broker, RabbitServer, RedisServer
from celery_pgbg.testing.databases import as_url as url_of
from tests import shapes

#: For Redis: messages of a Celery worker that is gone come back within seconds, also where it was restoring
#: others' itself and held the lock for that. How often they are looked for is our pool's matter.
HASTY = {"visibility_timeout": 2, "unacked_mutex_expire": 2}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the databases have an older pg_background."""
    parser.addoption(
        "--pg-background-line",
        choices=sorted(shapes.CATALOGS),
        help="give the extension in all databases of the tests the functions of this older line",
    )
    parser.addoption("--lc-messages", help="run on a development server of its own whose messages are in this locale")


def missing(what: str) -> NoReturn:
    """Skip, or in CI fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} (and CI is set)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def server_dsn(request: pytest.FixtureRequest) -> str:
    """DSN of a superuser on a server with pg_background."""
    language = request.config.getoption("lc_messages")
    try:
        if language:
            return DevServer(f"speaks-{language.partition('.')[0]}").start(lc_messages=language)
        return os.environ.get("PGBG_DSN") or DevServer().start()
    except DevServerError as exc:
        missing(str(exc))


@pytest.fixture
def not_root() -> tuple[str, ...]:
    """What runs a command as a user who is not root: nothing, unless we are root."""
    if os.geteuid() != 0:
        return ()
    command = ("unshare", "--user", "--map-user=1000")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        missing("unshare cannot make a user namespace here")
    return command


@pytest.fixture(scope="session")
def new_database(server_dsn: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Make databases with the extension and without our schema; all are dropped at the end."""
    made: list[str] = []
    line = request.config.getoption("pg_background_line")

    def make(encoding: str = "UTF8") -> str:
        name = f"pgbg_test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(server_dsn, autocommit=True) as session:
            create = "CREATE DATABASE {} TEMPLATE template0 LOCALE {} ENCODING {}"
            locale = "C.UTF-8" if encoding == "UTF8" else "C"
            session.execute(sql.SQL(create).format(sql.Identifier(name), locale, encoding))
        made.append(name)
        dsn = url_of(server_dsn, dbname=name)
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute("CREATE EXTENSION pg_background")
            if line:
                shapes.reshape(session, line)
        return dsn

    yield make
    if line:
        for name in made:
            with psycopg.connect(url_of(server_dsn, dbname=name)) as session:
                assert shapes.crashes(session) == 0, "something was done that crashes an older pg_background"
    with psycopg.connect(server_dsn, autocommit=True) as session:
        for name in made:
            session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def dsn(new_database: Callable[[], str]) -> str:
    """A database with our schema, shared by the whole run."""
    return _installed(new_database())


@pytest.fixture
def own_dsn(new_database: Callable[[], str]) -> str:
    """A database with our schema, of the test's own."""
    return _installed(new_database())


def _installed(made: str) -> str:
    with psycopg.connect(made, autocommit=True) as session:
        schema.install(session)
    return made


@pytest.fixture
def database(dsn: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A session of the test's own in the shared database."""
    with psycopg.connect(dsn, autocommit=True) as session:
        yield session


@pytest.fixture
def table(database: psycopg.Connection[tuple[object, ...]]) -> Iterator[str]:
    """A table with one text column, which counts effects."""
    with _made(database, "effects", sql.SQL("TABLE"), sql.SQL("(v text)")) as name:
        yield name


@pytest.fixture
def sequence(database: psycopg.Connection[tuple[object, ...]]) -> Iterator[str]:
    """A sequence, which counts runs whether they commit or not."""
    with _made(database, "runs", sql.SQL("SEQUENCE")) as name:
        yield name


@contextlib.contextmanager
def _made(
    database: psycopg.Connection[tuple[object, ...]], prefix: str, kind: sql.SQL, columns: sql.SQL | None = None
) -> Iterator[str]:
    """Create something of a name of its own, and drop it unless somebody holds it for long."""
    name = f"{prefix}_{uuid.uuid4().hex[:12]}"
    database.execute(sql.SQL("CREATE {} {} {}").format(kind, sql.Identifier(name), columns or sql.SQL("")))
    yield name
    database.execute("SET lock_timeout = '20s'")
    database.execute(sql.SQL("DROP {} {}").format(kind, sql.Identifier(name)))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis, without a database number."""
    yield from broker(RedisServer(f"tests-{os.getpid()}"))


@pytest.fixture(scope="session")
def hasty_redis(redis_url: str) -> str:
    """A database of Redis for Celery workers with the options ``HASTY``.

    Such a worker restores all messages in its database, those of other tests' workers too.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return f"{redis_url}/{2 + number % 6}"


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    """A RabbitMQ."""
    yield from broker(RabbitServer(f"tests-{os.getpid()}"))


def broker(server: Broker) -> Iterator[str]:
    """The usual one, else one of our own that ends with the tests."""
    try:
        url = server.find_or_start()
    except DevServerError as exc:
        missing(str(exc))
    yield url
    server.purge()
