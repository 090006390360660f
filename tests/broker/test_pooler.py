"""The broker through PgBouncer in transaction mode, where no lock shows that a consumer lives."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from kombu import Connection, Consumer, Queue

from celery_pgbg.broker.station import close_stations
from celery_pgbg.errors import SessionLost
from tests.fix_pgbouncer import PgBouncer
from tests.waiting import eventually

LEASED = "leased_until IS NOT NULL"


@pytest.fixture
def connection(transaction_pgbouncer: PgBouncer) -> Iterator[Connection]:
    with Connection(f"pgbg+{transaction_pgbouncer.url()}") as made:
        yield made
    close_stations()


def test_a_lease_stands_for_the_lock(
    connection: Connection, dsn: str, database: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue(f"leased-{uuid.uuid4()}", auto_delete=False)(connection.default_channel)
    queue.declare()
    connection.Producer().publish("a", routing_key=queue.name)
    got: list[Any] = []
    with caplog.at_level(logging.WARNING), Consumer(connection, [queue], on_message=got.append):
        connection.drain_events(timeout=20)
        connection.Producer().publish("b", routing_key=queue.name)
        connection.drain_events(timeout=20)
        assert [record for record in caplog.messages if "pooler in transaction mode" in record]
        got[0].ack()
        leased = "SELECT leased_until > clock_timestamp() + interval '30 s' FROM celery_pgbg.consumer WHERE "
        assert database.execute(leased + LEASED).fetchone() == (True,)
        with Connection(f"pgbg+{dsn}") as other:
            late = Queue(queue.name)(other.default_channel)
            with Consumer(other, [late], on_message=got.append):
                database.execute("UPDATE celery_pgbg.consumer SET leased_until = '-infinity' WHERE " + LEASED)
                eventually("it comes again", lambda: _drain(other) or len(got) == 3)
                assert (got[2].payload, got[2].delivery_info["redelivered"]) == ("b", True)
                with pytest.raises(SessionLost, match="its lease ended"):
                    eventually("it knows", lambda: _drain(connection))
                got[2].ack()
            late.delete()


def _drain(connection: Connection) -> bool:
    with contextlib.suppress(TimeoutError):
        connection.drain_events(timeout=0.5)
    return False
