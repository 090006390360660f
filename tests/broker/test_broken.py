"""The broker's server in trouble: silent, read-only, full."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from kombu import Connection
from psycopg import sql

from celery_pgbg.broker.station import close_stations
from celery_pgbg.errors import SessionLost
from celery_pgbg.testing.databases import as_url
from tests.broker.test_transport import declare, send
from tests.fix_celery import Shop
from tests.proxy import TcpProxy
from tests.waiting import eventually

NewShop = Callable[..., Shop]

ALONE = ("--without-mingle", "--without-gossip")

TAKES, SENDS = b"pgbg broker takes", b"pgbg broker sends"


@pytest.fixture(scope="module")
def broker_dsn(new_broker_database: Callable[[], str]) -> str:
    """A database in which tasks run, too."""
    return new_broker_database()


@pytest.fixture
def proxy(broker_dsn: str) -> Iterator[TcpProxy]:
    """A proxy before PostgreSQL."""
    parts = psycopg.conninfo.conninfo_to_dict(broker_dsn)
    with TcpProxy(str(parts["host"]), int(str(parts["port"]))) as made:
        yield made


@pytest.fixture
def shop(new_shop: NewShop, broker_dsn: str, server: Any, proxy: TcpProxy) -> Iterator[Shop]:
    """An app whose Celery workers reach the broker through the proxy, and the database of their tasks directly."""
    url = f"pgbg+{broker_dsn}"
    yield new_shop(url, url, pgbg_dsn=broker_dsn, pgbg_answer_timeout=2, broker_transport_options={})
    proxy.resume()
    close_stations()


@pytest.fixture
def behind(broker_dsn: str, proxy: TcpProxy) -> dict[str, Any]:
    """The settings of its Celery workers."""
    return {"broker": f"pgbg+{as_url(broker_dsn, port=str(proxy.port))}"}


def run(shop: Shop, number: int) -> None:
    """Run some tasks."""
    results = [shop.task("add").delay(i) for i in range(number)]
    assert [result.get(timeout=60) for result in results] == [[{"total": i + 2}] for i in range(number)]


@pytest.mark.parametrize("said", [TAKES, SENDS], ids=["takes", "sends"])
@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_broken_session_is_replaced(
    shop: Shop, behind: dict[str, Any], proxy: TcpProxy, said: bytes, fault: str
) -> None:
    shop.start_worker("-c4", "-E", *ALONE, **behind)
    run(shop, 5)
    eventually("it is there", lambda: proxy.count(said))
    assert getattr(proxy, fault)(said=said) == 1
    run(shop, 5)


@contextlib.contextmanager
def set_for_all(server: Any, name: str, value: str) -> Iterator[None]:
    """A setting for all new sessions of the database."""
    database = sql.Identifier(server.info.dbname)
    server.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, sql.Identifier(name), value))
    try:
        yield
    finally:
        server.execute(sql.SQL("SET default_transaction_read_only = off"))
        server.execute(sql.SQL("ALTER DATABASE {} RESET {}").format(database, sql.Identifier(name)))


def end_sessions(server: Any) -> None:
    """End those of the broker."""
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'pgbg broker%'"
    )


def test_a_server_that_is_read_only_for_a_while_is_waited_for(shop: Shop, server: Any) -> None:
    """As one is that was the primary before a failover."""
    worker = shop.start_worker("-c4", *ALONE)
    run(shop, 1)
    with set_for_all(server, "default_transaction_read_only", "on"):
        end_sessions(server)
        eventually("it is noticed", lambda: "accepts no writes" in worker.text())
        assert worker.process.poll() is None
    run(shop, 5)


#: Stands for a full disk, at which PostgreSQL ends the statement with this error.
FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE disk_full USING MESSAGE = 'could not extend file: no space left on device';
END $$;
CREATE TRIGGER full_disk BEFORE UPDATE OR DELETE ON celery_pgbg.message EXECUTE FUNCTION full_disk();
"""


def test_a_full_disk_is_waited_out_and_no_acknowledgement_is_lost(shop: Shop, server: Any) -> None:
    worker = shop.start_worker("-c4", *ALONE)
    run(shop, 1)
    server.execute(FULL)
    try:
        results = [shop.task("add").delay(i) for i in range(5)]
        eventually("it is noticed", lambda: worker.text().count("no space left") >= 5)
        assert worker.process.poll() is None
    finally:
        server.execute("DROP FUNCTION full_disk CASCADE")
    assert [result.get(timeout=60) for result in results] == [[{"total": i + 2}] for i in range(5)]
    left = "SELECT count(*) FROM celery_pgbg.message JOIN celery_pgbg.queue ON queue.id = queue_id WHERE name = %s"
    eventually("all are acknowledged", lambda: server.execute(left, [shop.queue]).fetchone() == (0,))


def test_a_consumer_waits_for_a_lock_whatever_others_are_allowed_to(
    broker_dsn: str, server: Any, connect: Callable[[], Connection]
) -> None:
    """A lock_timeout of the database is for its other users: here it would send again all that runs."""
    with set_for_all(server, "lock_timeout", "50ms"), psycopg.connect(broker_dsn) as other:
        connection = connect()
        queue = declare(connection)
        send(connection, "a")
        message = queue.get()
        other.execute("SELECT FROM celery_pgbg.message FOR UPDATE")
        acknowledging = threading.Thread(target=message.ack)
        acknowledging.start()
        blocked = "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
        eventually("it waits", lambda: server.execute(blocked, [other.info.backend_pid]).fetchone())
        acknowledging.join(1)
        assert acknowledging.is_alive()
        other.rollback()
        acknowledging.join(60)
        assert server.execute("SELECT count(*) FROM celery_pgbg.message").fetchone() == (0,)
        connection.close()


def test_a_server_that_accepts_no_writes_is_no_connection(own_dsn: str) -> None:
    with psycopg.connect(own_dsn, autocommit=True) as session:
        name = sql.Identifier(session.info.dbname)
        session.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        try:
            # Else Celery connects again and again, without a pause.
            with Connection(f"pgbg+{own_dsn}") as connection, pytest.raises(SessionLost, match="accepts no writes"):
                connection.connect()
            session.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
            with Connection(f"pgbg+{own_dsn}") as connection:
                connection.connect()
        finally:
            close_stations()
