"""What consumers ask of the server while there is nothing to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Producer

from celery_pgbg.broker.consumer_session import ConsumerSession
from celery_pgbg.broker.station import close_stations
from celery_pgbg.errors import SessionLost
from tests.broker.test_transport import declare, drain
from tests.fix_celery import Shop
from tests.waiting import eventually

EVENTS = Exchange("celeryev", type="topic")


def test_an_idle_consumer_asks_once_in_two_and_a_half_seconds(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fetch = ConsumerSession.fetch
    queue = declare(connection)
    with Consumer(connection, [queue], on_message=print):
        drain(connection)
        monkeypatch.setattr(
            ConsumerSession,
            "fetch",
            lambda session, name, **parameters: (asked.append(name), fetch(session, name, **parameters))[1],
        )
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=7)
    # Leaving, it says goodbye.
    while asked[-1] in ("unsubscribe", "wake_up"):
        asked.pop()
    assert set(asked) == {"tend_and_consume"}
    assert len(asked) <= 3


def test_a_heartbeat_wakes_nobody_and_is_found(connection: Connection, server: Any) -> None:
    """Celery workers send one each two seconds, and with gossip each of them gets all."""
    queue = declare(connection, exchange=EVENTS, routing_key="worker.#")
    queue_id = server.execute("SELECT id FROM celery_pgbg.queue WHERE name = 'q'").fetchone()[0]
    server.execute(f"LISTEN celery_pgbg_queue_{queue_id}")
    producer = Producer(connection.default_channel, exchange=EVENTS)
    got: list[Any] = []
    with Consumer(connection, [queue], on_message=lambda message: got.append(message.payload), no_ack=True):
        drain(connection)
        producer.publish("beat", routing_key="worker.heartbeat", delivery_mode=1)
        assert not list(server.notifies(timeout=0.2, stop_after=1))
        connection.drain_events(timeout=20)
        drain(connection)
        producer.publish("ours", routing_key="worker.heartbeat", delivery_mode=2)
        producer.publish("online", routing_key="worker.online", delivery_mode=1)
        assert len(list(server.notifies(timeout=5, stop_after=2))) == 2
        drain(connection)
    assert got == ["beat", "ours", "online"]


def test_a_consumer_that_is_off_the_record_takes_nothing(connection: Connection, server: Any) -> None:
    queue = declare(connection)
    with Consumer(connection, [queue], on_message=print):
        drain(connection)
        server.execute("DELETE FROM celery_pgbg.consumer")
        # Nobody is notified of it, so it is the next tending that could take it.
        server.execute(
            "INSERT INTO celery_pgbg.message (queue_id, priority, envelope, body)"
            " SELECT id, 0, '{}', '' FROM celery_pgbg.queue WHERE name = 'q'"
        )
        with pytest.raises(SessionLost, match="its record was deleted"):
            connection.drain_events(timeout=20)
    assert server.execute("SELECT taken_by, deliveries FROM celery_pgbg.message").fetchall() == [(None, 0)]


@pytest.fixture(scope="module")
def broker_dsn(new_broker_database: Callable[[], str]) -> str:
    """A database that nobody else uses."""
    return new_broker_database()


#: When each session of a client has begun its last statement.
STATEMENTS = """
SELECT pid, query_start FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def test_an_idle_celery_worker_asks_less_than_once_a_second(
    new_shop: Callable[..., Shop], broker_dsn: str, server: Any
) -> None:
    """With heartbeats, gossip and mingle."""
    url = f"pgbg+{broker_dsn}"
    shop = new_shop(url, url, pgbg_dsn=broker_dsn)
    shop.start_worker("-c2")
    shop.app.control.inspect(timeout=1).ping()
    shop.app.close()
    close_stations()
    observe(server, 5)
    rate = observe(server, 30)
    assert 0.3 < rate < 1


def observe(server: Any, seconds: float) -> float:
    """Look for so long what is asked; returns statements a second."""
    first = set(server.execute(STATEMENTS).fetchall())
    seen = set(first)
    began = time.monotonic()

    def is_over() -> bool:
        nonlocal seen
        seen |= set(server.execute(STATEMENTS).fetchall())
        return time.monotonic() >= began + seconds

    eventually("so much time has passed", is_over)
    return len(seen - first) / (time.monotonic() - began)
