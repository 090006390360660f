"""A session is lost at any round trip of sending or taking: before the request, or before its answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from celery import Celery, group
from kombu import Connection, Consumer, Exchange, Producer, Queue, pools

from celery_pgbg.broker.station import close_stations
from celery_pgbg.database.results import close_stores
from celery_pgbg.errors import SessionLost
from tests.broker.test_transport import declare, send
from tests.losses import When, each_round_trip, losing, outage

both = pytest.mark.parametrize("when", ["before", "after"])

#: Patient enough for an outage of a second.
POLICY = {"max_retries": 40, "interval_start": 0.1, "interval_step": 0, "interval_max": 0.1}


@pytest.fixture
def app(broker_dsn: str, server: Any) -> Iterator[Celery]:
    url = f"pgbg+{broker_dsn}"
    made = Celery("shop", broker=url, backend=url, set_as_current=False)
    made.conf.task_publish_retry_policy = POLICY
    made.send_task("shop.ship", (0,))
    server.execute("TRUNCATE celery_pgbg.message")
    yield made
    made.close()
    pools.reset()
    close_stations()
    close_stores()


def numbers(server: Any) -> list[int]:
    """The first arguments of the tasks in the table, in the order in which they were sent."""
    rows = server.execute("SELECT convert_from(body, 'UTF8')::json #>> '{0,0}' FROM celery_pgbg.message ORDER BY id")
    return [int(row[0]) for row in rows]


@both
def test_a_message_that_is_not_sent_again_by_a_policy_comes_once(
    connection: Connection, server: Any, when: When
) -> None:
    declare(connection)
    producer = Producer(connection.default_channel)
    reported: list[bool] = []

    def publish() -> None:
        try:
            producer.publish("a", routing_key="q")
        except SessionLost:
            reported.append(False)
        else:
            reported.append(True)

    for _ in each_round_trip(server, when, lambda: server.execute("TRUNCATE celery_pgbg.message"), publish):
        stored = server.execute("SELECT count(*) FROM celery_pgbg.message").fetchone()[0]
        # After an error it may be there.
        assert stored == 1 if reported[-1] else stored <= 1
    assert reported[-1]


def test_a_session_that_ended_while_idle_is_no_error(connection: Connection, server: Any) -> None:
    declare(connection)
    server.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'pgbg broker sends%'"
    )
    send(connection, "a")
    assert server.execute("SELECT count(*) FROM celery_pgbg.message").fetchone() == (1,)


@both
def test_a_task_that_was_sent_is_there(app: Celery, server: Any, when: When) -> None:
    """It may be there twice, under the same id, where the answer was lost."""

    def first() -> None:
        server.execute("TRUNCATE celery_pgbg.message")

    for lost in each_round_trip(server, when, first, lambda: app.send_task("shop.ship", (1,))):
        assert numbers(server) in ([[1], [1, 1]] if lost and when == "after" else [[1]])


@pytest.mark.parametrize("number", [3, 250])
def test_no_member_of_a_group_is_lost_while_the_server_is_away(
    app: Celery, server: Any, server_dsn: str, number: int
) -> None:
    members = group(app.signature("shop.ship", (i,)) for i in range(700))
    with outage(server_dsn, server, 1.0) as begin, losing(server, number, then=begin) as losses:
        members.apply_async()
    assert losses.lost
    assert numbers(server) == list(range(700))


def test_a_group_is_sent_again_only_if_its_call_allows_that(app: Celery, server: Any, server_dsn: str) -> None:
    members = group(app.signature("shop.ship", (i,)) for i in range(5))
    with outage(server_dsn, server, 1.0) as begin, losing(server, 3, then=begin), pytest.raises(SessionLost):
        members.apply_async(retry=False)
    assert numbers(server) == []


@both
def test_taken_messages_come_until_they_are_acknowledged(connection: Connection, server: Any, when: When) -> None:
    """A consumer connects again, as Celery's does. What comes again is marked."""
    got: list[tuple[str, bool]] = []

    def take(message: Any) -> None:
        got.append((message.payload, message.delivery_info["redelivered"]))
        message.ack()

    def is_empty() -> bool:
        return server.execute("SELECT count(*) FROM celery_pgbg.message").fetchone() == (0,)

    def consume() -> None:
        with (
            contextlib.suppress(SessionLost, psycopg.OperationalError),
            connection.clone() as consuming,
            Consumer(consuming.channel(), [Queue("q")], on_message=take, prefetch_count=2),
        ):
            while not is_empty():
                with contextlib.suppress(TimeoutError):
                    consuming.drain_events(timeout=0.1)

    def first() -> None:
        # Else the pauses between the sessions would grow.
        close_stations()
        server.execute("TRUNCATE celery_pgbg.message")
        got.clear()
        with connection.clone() as sending:
            declare(sending)
            send(sending, "a", "b", "c")

    def scenario() -> None:
        while not is_empty():
            consume()

    for _ in each_round_trip(server, when, first, scenario):
        assert {body for body, _ in got} == {"a", "b", "c"}
        assert all(marked for number, (body, marked) in enumerate(got) if body in {known for known, _ in got[:number]})
        fresh = [body for body, marked in got if not marked]
        assert fresh == sorted(fresh)


def test_what_a_lost_session_had_comes_to_who_only_gets(connection: Connection, server: Any) -> None:
    """No consumer is there that gives it back."""
    queue = declare(connection)
    send(connection, "a", "b")
    assert queue.get().payload == "a"
    server.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'pgbg broker takes%'"
    )
    connection.collect()
    message = declare(connection).get()
    assert (message.payload, message.delivery_info["redelivered"]) == ("a", True)


def test_a_queue_that_is_declared_again_after_a_loss_is_not_deleted_with_the_lost_consumer(
    connect: Callable[[], Connection], server: Any
) -> None:
    """Its own Celery worker connects again just as another one notices the loss."""
    exchange = Exchange("f", "fanout")
    queue = Queue("pidbox", exchange, auto_delete=True)
    first = connect()
    with contextlib.suppress(SessionLost), Consumer(first, [queue], on_message=print):
        server.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'pgbg broker takes%'"
        )
    again = queue(connect().channel())
    again.queue_declare()
    assert server.execute("SELECT celery_pgbg.tend_broker(-1, NULL, NULL, false)").fetchone() == (False,)
    assert server.execute("SELECT id FROM celery_pgbg.consumer").fetchall() == []
    again.queue_bind()
    with Consumer(again.channel, [again], on_message=print, auto_declare=False):
        pass
    # An orderly end deletes it at once, a loss after a while.
    is_there = "SELECT count(*) FROM celery_pgbg.queue WHERE name = 'pidbox'"
    assert server.execute(is_there).fetchone() == (0,)
    again.queue_declare()
    server.execute("UPDATE celery_pgbg.queue SET expires_at = now() WHERE name = 'pidbox'")
    server.execute("SELECT celery_pgbg.tend_broker(-1, NULL, NULL, false)")
    assert server.execute(is_there).fetchone() == (0,)
