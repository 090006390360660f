"""The transport as kombu uses it, on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from amqp.exceptions import NotFound
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.asynchronous.hub import Hub

from celery_pgbg.broker import browsing, driver
from celery_pgbg.broker.inlet import Inlet
from celery_pgbg.broker.station import close_stations
from celery_pgbg.errors import SessionLost
from tests.waiting import eventually

Connect = Callable[[], Connection]


def declare(connection: Connection, name: str = "q", **options: Any) -> Queue:
    queue = Queue(name, **options)(connection.default_channel)
    queue.declare()
    return queue


def send(connection: Connection, *bodies: Any, queue: str = "q", **options: Any) -> None:
    producer = Producer(connection.default_channel)
    for body in bodies:
        producer.publish(body, routing_key=queue, **options)


def take_all(queue: Queue) -> list[Any]:
    """Every message of a queue, acknowledged."""
    taken = []
    while (message := queue.get()) is not None:
        message.ack()
        taken.append(message.payload)
    return taken


def waiting(server: psycopg.Connection[Any]) -> int:
    row = server.execute("SELECT count(*) FROM celery_pgbg.message WHERE taken_by IS NULL").fetchone()
    assert row
    return int(row[0])


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=3000)
HOSTILE = ["x'; DROP TABLE celery_pgbg.message; --", "%s %(a)s %", "a" * 5000, "\u202eö\n\t\x01", "\uff51.#.*\\"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.one_of(st.sampled_from(HOSTILE), names), body=st.binary(max_size=2000))
def test_any_name_and_any_body_come_back_as_they_were(connection: Connection, name: str, body: bytes) -> None:
    queue = declare(connection, name)
    headers = {"h": body, name: [name, {"a": "\0"}], "n": None}
    send(connection, body, queue=name, headers=headers)
    message = queue.get()
    assert (message.body, message.headers) == (body, headers)
    assert message.delivery_info["routing_key"] == name
    message.ack()
    assert queue.get() is None


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_serializers_and_compression(connection: Connection, serializer: str, compression: str | None) -> None:
    queue = declare(connection)
    send(connection, {"a": ["ü", 1.5, None]}, serializer=serializer, compression=compression)
    message = queue.get(accept=[serializer])
    assert message.decode() == {"a": ["ü", 1.5, None]}


def test_a_body_of_many_megabytes(connection: Connection) -> None:
    queue = declare(connection)
    body = bytes(range(256)) * 4096 * 24
    send(connection, body)
    assert queue.get().body == body


def test_the_higher_priority_goes_first_and_equals_in_their_order(connection: Connection) -> None:
    queue = declare(connection, max_priority=9)
    for number, priority in enumerate([0, 9, 5, 9, 300, -1, None]):
        send(connection, number, priority=priority)
    assert take_all(queue) == [1, 3, 4, 2, 0, 5, 6]


def test_without_a_highest_priority_the_order_is_that_of_sending(connection: Connection) -> None:
    queue = declare(connection)
    for number, priority in enumerate([0, 9, 5]):
        send(connection, number, priority=priority)
    assert take_all(queue) == [0, 1, 2]


# What RabbitMQ's documentation says of topics.
TOPICS = {
    "*.orange.*": {"quick.orange.rabbit", "lazy.orange.elephant", "quick.orange.fox"},
    "lazy.#": {"lazy.orange.elephant", "lazy.brown.fox", "lazy", "lazy.orange.new.rabbit"},
    "#": None,
    "*": {"lazy", "orange"},
    "#.fox": {"quick.orange.fox", "lazy.brown.fox", "quick.brown.fox"},
    "a(b.c+[d]$": {"a(b.c+[d]$"},
    "": {""},
}
KEYS = [
    "quick.orange.rabbit", "lazy.orange.elephant", "quick.orange.fox", "lazy.brown.fox", "lazy.orange.new.rabbit",
    "quick.brown.fox", "orange", "lazy", "quick.orange.new.rabbit", "a(b.c+[d]$", "aab.cc", "",
]  # fmt: skip


@pytest.mark.parametrize("pattern", TOPICS)
def test_topics(connection: Connection, pattern: str) -> None:
    exchange = Exchange("topics", "topic")
    queue = declare(connection, exchange=exchange, routing_key=pattern)
    producer = Producer(connection.default_channel, exchange=exchange)
    for key in KEYS:
        producer.publish([key], routing_key=key)
    wanted = TOPICS[pattern]
    assert take_all(queue) == [[key] for key in KEYS if wanted is None or key in wanted]


def test_direct_and_fanout_exchanges(connection: Connection) -> None:
    direct, fanout = Exchange("d", "direct"), Exchange("f", "fanout")
    one = declare(connection, "one", exchange=direct, routing_key="k")
    two = declare(connection, "two", exchange=direct, routing_key="k")
    three = declare(connection, "three", exchange=fanout)
    two.bind_to(fanout)
    for exchange, key in ((direct, "k"), (direct, "other"), (fanout, "any")):
        Producer(connection.default_channel, exchange=exchange).publish([exchange.name, key], routing_key=key)
    assert take_all(one) == [["d", "k"]]
    assert take_all(two) == [["d", "k"], ["f", "any"]]
    assert take_all(three) == [["f", "any"]]
    two.unbind_from(fanout)
    Producer(connection.default_channel, exchange=fanout).publish("x")
    assert (take_all(two), take_all(three)) == ([], ["x"])


def test_what_is_not_there(connection: Connection) -> None:
    channel = connection.default_channel
    with pytest.raises(NotFound):
        channel.queue_declare("nothing", passive=True)
    with pytest.raises(NotFound):
        channel.exchange_declare("nothing", passive=True)
    with pytest.raises(NotFound):
        channel.basic_consume("nothing", callback=print)
    assert channel.basic_get("nothing") is None
    returned: list[Any] = []
    channel.events["basic_return"].add(lambda *args: returned.append(args))
    channel.basic_publish(channel.prepare_message(b"x"), "", "nothing", mandatory=True)
    assert returned[0][1:3] == ("", "nothing")


def test_counts_and_purge(connection: Connection, connect: Connect) -> None:
    queue = declare(connection)
    send(connection, *range(5))
    consumer = Consumer(connect(), [queue], callbacks=[lambda body, message: None], prefetch_count=2)
    consumer.consume()
    consumer.connection.drain_events(timeout=10)
    counted = connection.default_channel.queue_declare("q", passive=True)
    assert (counted.message_count, counted.consumer_count) == (3, 1)
    assert queue.purge() == 3
    assert queue.get() is None


def test_what_the_last_consumer_had_waits_after_its_loss(connection: Connection, connect: Connect, server: Any) -> None:
    # No consumer is left to give it back. What counts a queue to start Celery workers must see it.
    queue = declare(connection)
    send(connection, *range(3))
    consumer = Consumer(connect(), [queue], callbacks=[lambda body, message: None], prefetch_count=2)
    consumer.consume()
    consumer.connection.drain_events(timeout=10)
    server.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'pgbg broker takes%'"
    )
    counted = connection.default_channel.queue_declare("q", passive=True)
    assert (counted.message_count, counted.consumer_count) == (3, 0)
    [shown] = [row for row in browsing.queues(server) if row["name"] == "q"]
    assert (shown["waiting"], shown["taken"], shown["consumers"]) == (3, 0, 0)
    assert [row["is_taken"] for row in browsing.messages(server, "q", None)] == [False] * 3
    assert browsing.purge(server, "q") == 3
    assert connection.default_channel.queue_declare("q", passive=True).message_count == 0


def test_the_prefetch_count_is_kept_and_an_ack_makes_room(connection: Connection) -> None:
    queue = declare(connection)
    send(connection, *range(6))
    got: list[Any] = []
    channel = connection.channel()
    with Consumer(channel, [queue], on_message=got.append, prefetch_count=2):
        for _ in range(2):
            connection.drain_events(timeout=10)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.2)
        got[1].ack()
        connection.drain_events(timeout=10)
        assert [message.payload for message in got] == [0, 1, 2]


def test_what_is_not_acknowledged_comes_back_marked(connection: Connection, connect: Connect) -> None:
    declare(connection)
    send(connection, "a", "b")
    other = connect()
    first = declare(other).get()
    assert not first.delivery_info["redelivered"]
    first.requeue()
    again = declare(other).get()
    assert (again.payload, again.delivery_info["redelivered"]) == ("a", True)
    other.close()
    assert take_all(declare(connection)) == ["a", "b"]


def test_a_rejected_message_is_gone(connection: Connection, server: Any) -> None:
    queue = declare(connection)
    send(connection, "a")
    queue.get().reject()
    assert queue.get() is None
    assert server.execute("SELECT count(*) FROM celery_pgbg.message").fetchone() == (0,)


def test_messages_expire(connection: Connection) -> None:
    by_queue, by_message = declare(connection, "a", message_ttl=0.2), declare(connection, "b")
    send(connection, "x", queue="a")
    send(connection, "x", queue="b", expiration=0.2)
    send(connection, "y", queue="b")
    eventually(
        "it has expired", lambda: connection.default_channel.queue_declare("a", passive=True) and by_queue.get() is None
    )
    assert take_all(by_message)[-1] == "y"


def test_queues_end_when_they_are_not_used(connection: Connection, connect: Connect, server: Any) -> None:
    declare(connection, "expiring", expires=0.2)
    declare(connection, "auto", auto_delete=True)
    declare(connection, "lasting")
    other = connect()
    with Consumer(other, [declare(other, "auto", auto_delete=True)], on_message=print):
        assert connection.default_channel.queue_declare("auto", passive=True).consumer_count == 1
    with Consumer(other, [declare(other, "lasting")], on_message=print):

        def is_gone() -> bool:
            with pytest.raises(TimeoutError):
                other.drain_events(timeout=0.2)
            return server.execute(
                "SELECT name FROM celery_pgbg.queue WHERE name <> 'celery_pgbg.outbox'"
            ).fetchall() == [("lasting",)]

        eventually("two are gone", is_gone)


def test_a_waiting_consumer_is_woken(connection: Connection, connect: Connect) -> None:
    queue = declare(connection)
    sender = connect()
    sender.connect()
    seconds = []
    for _ in range(5):
        timer = threading.Timer(0.3, send, (sender, 1))
        with Consumer(connection, [queue], on_message=lambda message: (message.ack(), seconds.append(time.time()))):
            started = time.time()
            timer.start()
            connection.drain_events(timeout=10)
            seconds[-1] -= started + 0.3
        timer.join()
    assert min(seconds) < 0.2, seconds


def test_only_a_sleeping_consumer_is_notified(connection: Connection, connect: Connect, server: Any) -> None:
    queue = declare(connection)
    queue_id = server.execute("SELECT id FROM celery_pgbg.queue WHERE name = 'q'").fetchone()[0]
    server.execute(f"LISTEN celery_pgbg_queue_{queue_id}")
    send(connection, "nobody sleeps")
    assert not list(server.notifies(timeout=0.1, stop_after=1))
    consuming = connect()
    with Consumer(consuming, [queue], on_message=lambda message: None, prefetch_count=1):
        consuming.drain_events(timeout=10)
        with pytest.raises(TimeoutError):
            consuming.drain_events(timeout=0.2)
        send(connection, "it has its fill")
        assert not list(server.notifies(timeout=0.1, stop_after=1))
    eager = connect()
    with Consumer(eager, [queue], on_message=lambda message: message.ack()):
        drain(eager)
        send(connection, "it sleeps")
        assert list(server.notifies(timeout=5, stop_after=1))
        drain(eager)


@pytest.mark.parametrize("by_loop", [False, True])
def test_a_consumer_that_has_its_fill_does_not_look_again_and_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, by_loop: bool
) -> None:
    """Also where another one could take more, as remote control beside long tasks."""
    looks: list[float] = []
    look = Inlet.look
    monkeypatch.setattr(Inlet, "look", lambda inlet: (looks.append(time.monotonic()), look(inlet)))
    full, idle = declare(connection, "full"), declare(connection, "idle")
    send(connection, *range(5), queue="full")
    hub = Hub()
    if by_loop:
        connection.register_with_event_loop(hub)
    with (
        Consumer(connection.channel(), [full], on_message=lambda message: None, prefetch_count=2),
        Consumer(connection.channel(), [idle], on_message=lambda message: None, no_ack=True),
    ):
        until = time.monotonic() + 2
        while time.monotonic() < until:
            hub.run_once() if by_loop else drain(connection)
    hub.close()
    assert 2 <= len([at for at in looks if at < until]) < 12


def test_a_loop_that_forgot_its_timers_still_acknowledges(
    connection: Connection, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery 5.4 clears them when it connects again."""
    # Ticks would hide it.
    monkeypatch.setattr(driver, "_TICK", 3600.0)
    queue = declare(connection)
    send(connection, "a")
    hub = Hub()
    got: list[Any] = []
    with Consumer(connection.channel(), [queue], on_message=got.append):
        connection.register_with_event_loop(hub)
        hub.timer.clear()
        connection.register_with_event_loop(hub)
        until = time.monotonic() + 2
        while not got or time.monotonic() < until:
            hub.run_once()
        got[0].ack()
        deadline = time.monotonic() + 20
        while (left := server.execute("SELECT count(*) FROM celery_pgbg.message").fetchone()) != (0,):
            assert time.monotonic() < deadline, left
            hub.run_once()
    hub.close()


def drain(connection: Connection) -> None:
    """Deliver until nothing comes any more."""
    while True:
        try:
            connection.drain_events(timeout=0.3)
        except TimeoutError:
            return


def test_a_consumer_that_is_gone_loses_its_messages_and_its_late_ack_harms_nobody(
    connection: Connection, connect: Connect, server: Any, broker_dsn: str
) -> None:
    queue = declare(connection)
    send(connection, "a")
    message = queue.get()
    # A consumer of an earlier test is gone, and its PID may be another session's.
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM celery_pgbg.consumer JOIN pg_stat_activity USING (pid)"
        " WHERE datname = current_database() AND application_name LIKE 'pgbg broker takes%'"
    )
    # The next one to come finds it at once; one that is there, within two and a half seconds.
    eventually(
        "its lock is gone",
        lambda: (
            server.execute(
                "SELECT pg_try_advisory_xact_lock(celery_pgbg.lock_key('consumer', id::text)) FROM celery_pgbg.consumer"
            ).fetchone()
            == (True,)
        ),
    )
    with pytest.raises((SessionLost, psycopg.OperationalError)):
        message.ack()
    fresh = connect()
    got: list[Any] = []
    with Consumer(fresh, [declare(fresh)], on_message=got.append):
        fresh.drain_events(timeout=10)
        assert (got[0].payload, got[0].delivery_info["redelivered"]) == ("a", True)
        with pytest.raises((SessionLost, psycopg.OperationalError)):
            message.ack()
        assert server.execute("SELECT count(*) FROM celery_pgbg.message").fetchone() == (1,)
        got[0].ack()
    assert server.execute("SELECT count(*) FROM celery_pgbg.message").fetchone() == (0,)


def test_messages_of_a_batch_keep_their_order_and_many_wait(connection: Connection) -> None:
    queue = declare(connection)
    send(connection, *range(450))
    got: list[int] = []
    with Consumer(connection, [queue], on_message=lambda message: (got.append(message.payload), message.ack())):
        while len(got) < 450:
            connection.drain_events(timeout=10)
    assert got == list(range(450))


def test_a_message_that_commits_late_is_found(connection: Connection, server: Any, broker_dsn: str) -> None:
    """Its id is lower than those that were taken meanwhile."""
    queue = declare(connection)
    got: list[Any] = []
    call = "SELECT celery_pgbg.publish('', 'q', 0, NULL, false, '{\"content_type\": \"text/plain\"}', %s)"
    with (
        Consumer(connection, [queue], on_message=lambda message: (got.append(bytes(message.body)), message.ack())),
        psycopg.connect(broker_dsn) as late,
    ):
        late.execute(call, [b"late"])
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            server.execute(call, [b"early"])
            connection.drain_events(timeout=10)
        late.commit()
        while got[-1] != b"late":
            connection.drain_events(timeout=10)


def test_a_message_that_commits_late_does_not_wait_for_the_end_of_a_long_queue(
    connection: Connection, server: Any, broker_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the first takes may last longer than the usual third of a second.
    monkeypatch.setattr("celery_pgbg.broker.slots.LATE_SECONDS", 60)
    queue = declare(connection)
    got: list[bytes] = []
    envelope = '{"content_type": "text/plain"}'
    many = (
        "INSERT INTO celery_pgbg.message (queue_id, priority, envelope, body) SELECT id, 0, %s, ''"
        " FROM celery_pgbg.queue, generate_series(1, %s) WHERE name = 'q'"
    )
    with psycopg.connect(broker_dsn) as late:
        server.execute(many, [envelope, 500])
        late.execute("SELECT celery_pgbg.publish('', 'q', 0, NULL, false, %s, 'late')", [envelope])
        server.execute(many, [envelope, 20_000])
        # Acknowledged one by one they would take longer.
        with Consumer(connection, [queue], no_ack=True, on_message=lambda message: got.append(bytes(message.body))):
            while len(got) < 600:
                connection.drain_events(timeout=10)
            late.commit()
            while len(got) < 20_501:
                connection.drain_events(timeout=10)
    assert got.index(b"late") < 15_000


def test_every_thread_gets_its_own_messages(connect: Connect) -> None:
    """Several connections of a process share a session; each gets what is its."""
    names = [f"t{i}" for i in range(4)]
    connections = [connect() for _ in names]
    queues = [declare(each, name) for each, name in zip(connections, names, strict=True)]
    got: dict[str, list[Any]] = {name: [] for name in names}

    def run(each: Connection, queue: Queue) -> None:
        with Consumer(
            each, [queue], on_message=lambda message: (got[queue.name].append(message.payload), message.ack())
        ):
            while len(got[queue.name]) < 20:
                each.drain_events(timeout=20)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(connections, queues, strict=True)]
    for thread in threads:
        thread.start()
    sender = connect()
    for number in range(20):
        for name in names:
            send(sender, [name, number], queue=name)
    for thread in threads:
        thread.join(60)
    assert got == {name: [[name, number] for number in range(20)] for name in names}


def test_dead_letters(broker_dsn: str, server: Any) -> None:
    app = Celery(broker=f"pgbg+{broker_dsn}", set_as_current=False)
    app.conf.pgbg_max_deliveries = 3
    with app.connection_for_write() as connection:
        queue = declare(connection)
        send(connection, "poison")
        for _ in range(3):
            queue.get().requeue()
        assert queue.get() is None
        assert take_all(declare(connection, "celery_pgbg.dead_letters")) == ["poison"]
    app.close()
    close_stations()
