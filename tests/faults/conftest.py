"""Servers and apps that the fault tests may break."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from celery_pgbg.database import schema
from celery_pgbg.devserver import DevServer, DevServerError
from tests.fix_celery import Shop
from tests.fix_server import HASTY, missing
from tests.proxy import TcpProxy

BROKERS = ["redis", "amqp", "pgbg"]

#: A Celery worker is ready a second earlier without asking for others.
ALONE = ("--without-mingle", "--without-gossip")


@pytest.fixture
def holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files hold Celery workers that are started from now on, see ``be_held``."""
    monkeypatch.setenv("PGBG_TEST_HOLDS", str(tmp_path))
    return tmp_path


@pytest.fixture
def new_server() -> Iterator[Callable[..., DevServer]]:
    """Start PostgreSQL servers of the test's own, not durable, which are gone at the end."""
    made: list[DevServer] = []

    def make(**settings: Any) -> DevServer:
        server = DevServer(f"faults-{os.getpid()}-{uuid.uuid4().hex[:6]}", say=lambda text: None)
        made.append(server)
        try:
            dsn = server.start(**{"max_worker_processes": 40, "fsync": False, **settings})
        except DevServerError as exc:
            missing(str(exc))
        with psycopg.connect(dsn, autocommit=True) as session:
            schema.install(session)
        return server

    yield make
    for server in made:
        for place in ("pgbg", "root/srv/pgbg"):
            log = server.directory / place / f"{server.name}.log"
            if log.exists():
                # Seen where the test has failed.
                print(f"--- {server.name}\n{log.read_text(errors='replace')[-4000:]}")
        server.stop(purge=True)


@pytest.fixture
def fault_shop(
    new_shop: Callable[..., Shop], redis_url: str, hasty_redis: str, request: pytest.FixtureRequest
) -> Callable[..., Shop]:
    """Make an app on a broker, ``redis``, ``amqp`` or ``pgbg``, with its results in Redis."""

    def make(broker: str, dsn: str, **settings: Any) -> Shop:
        if broker == "redis":
            settings = {"broker_transport_options": HASTY, **settings}
        match broker:
            case "redis":
                url = hasty_redis
            case "pgbg":
                url = f"pgbg+{dsn}"
            case _:
                url = str(request.getfixturevalue("amqp_url"))
        return new_shop(url, f"{redis_url}/10", pgbg_dsn=dsn, **settings)

    return make


def proxy_of(shop: Shop) -> TcpProxy:
    """A proxy before an app's broker."""
    address = urlsplit(shop.app.conf.broker_url)
    assert address.hostname
    return TcpProxy(address.hostname, address.port or 0)


def through(proxy: TcpProxy, shop: Shop) -> str:
    """The URL of an app's broker through a proxy."""
    url: str = shop.app.conf.broker_url
    return url.replace(f":{urlsplit(url).port}/", f":{proxy.port}/")
