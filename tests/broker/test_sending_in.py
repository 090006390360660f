"""Sending in the caller's transaction: there with the commit, gone with the rollback."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psycopg
import psycopg2
import pytest
import sqlalchemy
from celery import Celery, chain, chord, group
from kombu import Connection, Queue
from redis import Redis
from sqlalchemy.orm import Session

import celery_pgbg
from celery_pgbg.broker.outbox import OUTBOX
from celery_pgbg.broker.queries import query
from celery_pgbg.broker.relay import Relay
from celery_pgbg.broker.station import close_stations
from celery_pgbg.configuration import settings_of
from celery_pgbg.database import schema
from celery_pgbg.database.results import close_stores
from celery_pgbg.errors import SendingFailed
from tests.waiting import eventually

#: Makes a connection, and what commits or rolls back around a block.
Opened = tuple[Any, Callable[[], AbstractContextManager[Any]]]


def make_app(broker: str, dsn: str, backend: str = "pgbg://") -> Celery:
    app = Celery("shop", broker=broker, backend=backend, set_as_current=False)
    app.conf.pgbg_dsn = dsn

    @app.task(name="shop.ship", shared=False)
    def ship(order: int) -> int:
        return order

    return app


@pytest.fixture
def app(broker_dsn: str, server: Any) -> Iterator[Celery]:
    made = make_app("pgbg://", broker_dsn)
    made.send_task("shop.ship", (0,))
    server.execute("TRUNCATE celery_pgbg.message, celery_pgbg.chord")
    yield made
    made.close()
    close_stations()
    close_stores()


@contextlib.contextmanager
def open_psycopg(dsn: str) -> Iterator[Opened]:
    with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        yield connection, connection.transaction


@contextlib.contextmanager
def open_psycopg2(dsn: str) -> Iterator[Opened]:
    with contextlib.closing(psycopg2.connect(dsn)) as connection:
        yield connection, lambda: connection


def open_sqlalchemy(driver: str, orm: bool) -> Callable[[str], AbstractContextManager[Opened]]:
    @contextlib.contextmanager
    def opened(dsn: str) -> Iterator[Opened]:
        engine = sqlalchemy.create_engine(dsn.replace("postgresql:", f"postgresql+{driver}:"))
        with Session(engine) if orm else engine.connect() as connection:
            yield connection, connection.begin
        engine.dispose()

    return opened


CONNECTIONS = {
    "psycopg 3": open_psycopg,
    "psycopg2": open_psycopg2,
    "SQLAlchemy, psycopg 3": open_sqlalchemy("psycopg", False),
    "SQLAlchemy, psycopg2": open_sqlalchemy("psycopg2", False),
    "SQLAlchemy's session, psycopg 3": open_sqlalchemy("psycopg", True),
    "SQLAlchemy's session, psycopg2": open_sqlalchemy("psycopg2", True),
}


class RolledBack(Exception):
    pass


def counts(server: Any) -> tuple[int, int]:
    """Messages, and chords."""
    query = "SELECT (SELECT count(*) FROM celery_pgbg.message), (SELECT count(*) FROM celery_pgbg.chord)"
    row: tuple[int, int] = server.execute(query).fetchone()
    return row


#: A process whose first act is to send a group; the name of a database comes as its argument.
FIRST_GROUP = """
import contextlib, sys
import psycopg
from celery import Celery, group
import celery_pgbg

app = Celery("shop", broker="pgbg://", backend="pgbg://")
app.conf.pgbg_dsn = sys.argv[1]
members = group(app.signature("shop.ship", (number,)) for number in range(40))
if sys.argv[2] == "alone":
    members.apply_async()
else:
    with psycopg.connect(sys.argv[1]) as connection, celery_pgbg.sending_in(connection):
        members.apply_async()
"""


@pytest.mark.parametrize("how", ["alone", "in a transaction"])
def test_the_first_group_of_a_process_is_sent_together(broker_dsn: str, server: Any, how: str) -> None:
    subprocess.run([sys.executable, "-c", FIRST_GROUP, broker_dsn, how], check=True, timeout=60)
    query = "SELECT count(*), count(DISTINCT xmin::text) FROM celery_pgbg.message"
    assert server.execute(query).fetchone() == (40, 1)


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_messages_commit_and_roll_back_with_the_caller(app: Celery, broker_dsn: str, server: Any, kind: str) -> None:
    ship = app.tasks["shop.ship"]
    with CONNECTIONS[kind](broker_dsn) as (connection, transaction):
        with contextlib.suppress(RolledBack), transaction():
            with celery_pgbg.sending_in(connection):
                ship.delay(1)
            raise RolledBack
        assert counts(server) == (0, 0)
        with transaction():
            with celery_pgbg.sending_in(connection):
                ship.delay(1)
                group(ship.s(i) for i in range(20)).delay()
                chord([ship.s(1), ship.s(2)], ship.si(3)).delay()
                chain(ship.s(1), ship.si(2)).delay()
            assert counts(server) == (0, 0)
        assert counts(server) == (1 + 20 + 2 + 1, 1)
        ship.delay(2)
        assert counts(server) == (25, 1)


def test_a_connection_to_another_database_is_refused(app: Celery, new_database: Callable[[], str], server: Any) -> None:
    other = new_database()
    with psycopg.connect(other, autocommit=True) as session:
        schema.install(session)
    refused = pytest.raises(SendingFailed, match="another database than the broker")
    with psycopg.connect(other) as connection, celery_pgbg.sending_in(connection), refused:
        app.tasks["shop.ship"].delay(1)
    assert counts(server) == (0, 0)
    with pytest.raises(TypeError, match="expected a connection of psycopg"), celery_pgbg.sending_in(other):
        pass


def test_a_failed_transaction_is_the_callers_error(app: Celery, broker_dsn: str, server: Any) -> None:
    with psycopg.connect(broker_dsn) as connection:
        with contextlib.suppress(psycopg.Error):
            connection.execute("SELECT 1 / 0")
        with celery_pgbg.sending_in(connection), pytest.raises(psycopg.errors.InFailedSqlTransaction):
            app.tasks["shop.ship"].delay(1)
        connection.rollback()
        connection.execute("SELECT 1")
        server.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        with celery_pgbg.sending_in(connection), pytest.raises(SendingFailed):
            app.tasks["shop.ship"].delay(1)
    assert counts(server) == (0, 0)


def test_sql_sends_a_task_that_celery_runs(app: Celery, server: Any) -> None:
    send = "SELECT celery_pgbg.send_task('shop.ship', args => '[41]', task_id => %s, queue => 'from sql')"
    task_id = str(uuid.uuid4())
    with server.transaction(force_rollback=True):
        server.execute(send, [task_id])
    assert counts(server) == (0, 0)
    assert server.execute(send, [task_id]).fetchone() == (task_id,)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="args as a JSON array"):
        server.execute("SELECT celery_pgbg.send_task('shop.ship', args => '{}')")
    from celery.contrib.testing.worker import start_worker

    with start_worker(app, queues=["from sql"], pool="threads", perform_ping_check=False):
        assert app.AsyncResult(task_id).get(timeout=30) == 41


# --- another broker: outbox and relay -----------------------------------------------------------------


@pytest.fixture
def redis_app(broker_dsn: str, server: Any, redis_url: str) -> Iterator[Celery]:
    made = make_app(f"{redis_url}/8", broker_dsn)
    made.conf.task_default_queue = f"pgbg-test-{uuid.uuid4().hex[:12]}"
    yield made
    with Redis.from_url(f"{redis_url}/8") as redis:
        redis.delete(made.conf.task_default_queue)
    made.close()
    close_stores()


def relayed(app: Celery) -> list[Any]:
    """What is in the other broker's queue, in its order."""
    found = []
    with app.connection_for_read() as connection, connection.SimpleQueue(app.conf.task_default_queue) as queue:
        while True:
            try:
                message = queue.get(timeout=0.2)
            except queue.Empty:
                return found
            message.ack()
            found.append((message.headers["id"], message.payload[0][0]))


def is_empty(server: Any) -> Callable[[], bool]:
    return lambda: counts(server)[0] == 0


def test_with_another_broker_a_relay_sends_on_in_order(redis_app: Celery, broker_dsn: str, server: Any) -> None:
    ship = redis_app.tasks["shop.ship"]
    ids = [str(uuid.uuid4()) for _ in range(250)]
    with psycopg.connect(broker_dsn) as connection:
        with celery_pgbg.sending_in(connection):
            ship.delay(1)
        connection.rollback()
        with celery_pgbg.sending_in(connection):
            for number, task_id in enumerate(ids):
                ship.apply_async((number,), task_id=task_id, compression="zlib" if number % 2 else None)
    assert relayed(redis_app) == []
    Relay(redis_app, broker_dsn, settings_of(redis_app)).run(is_done=is_empty(server))
    assert relayed(redis_app) == [(task_id, number) for number, task_id in enumerate(ids)]
    queue = redis_app.conf.task_default_queue
    sent = server.execute("SELECT celery_pgbg.send_task('shop.ship', args => '[7]', queue => %s)", [queue]).fetchone()[
        0
    ]
    Relay(redis_app, broker_dsn, settings_of(redis_app)).run(is_done=is_empty(server))
    assert relayed(redis_app) == [(sent, 7)]


def test_what_sql_sent_before_the_first_relay_is_forwarded_too(redis_app: Celery, broker_dsn: str, server: Any) -> None:
    server.execute("UPDATE celery_pgbg.queue SET declared_at = '-infinity' WHERE name = 'celery_pgbg.outbox'")
    queue = redis_app.conf.task_default_queue

    def send(number: int) -> tuple[str, int]:
        text = "SELECT celery_pgbg.send_task('shop.ship', args => jsonb_build_array(%s::int), queue => %s)"
        return server.execute(text, [number, queue]).fetchone()[0], number

    sent = [send(1), send(2)]
    Relay(redis_app, broker_dsn, settings_of(redis_app)).run(is_done=is_empty(server))
    sent.append(send(3))
    Relay(redis_app, broker_dsn, settings_of(redis_app)).run(is_done=is_empty(server))
    assert relayed(redis_app) == sent


def test_the_first_program_declares_a_queue_that_sql_has_sent_to(broker_dsn: str, server: Any) -> None:
    server.execute("UPDATE celery_pgbg.queue SET declared_at = '-infinity' WHERE name = 'celery_pgbg.outbox'")
    server.execute("SELECT celery_pgbg.send_task('shop.ship', queue => 'by sql', priority => 7)")
    with Connection(f"pgbg+{broker_dsn}") as connection:
        queue = Queue("by sql", max_priority=5)(connection.default_channel)
        queue.declare()
        Queue("by sql", max_priority=9)(connection.default_channel).declare()
        asked = "SELECT max_priority FROM celery_pgbg.queue WHERE name = 'by sql' AND declared_at > '-infinity'"
        assert server.execute(asked).fetchone() == (5,)
        # A relay that starts now leaves the queue alone.
        server.execute(query("start_relay"), {"name": OUTBOX})
        message = queue.get()
        message.ack()
    close_stations()
    assert message.headers["task"] == "shop.ship"


@pytest.fixture(params=["redis", "amqp"])
def other_app(request: pytest.FixtureRequest, broker_dsn: str, server: Any, redis_url: str) -> Iterator[Celery]:
    """An app with another broker, and a queue of its own there."""
    url = f"{redis_url}/8" if request.param == "redis" else request.getfixturevalue("amqp_url")
    made = make_app(url, broker_dsn)
    made.conf.task_default_queue = f"pgbg-test-{uuid.uuid4().hex[:12]}"
    yield made
    with made.connection_for_write() as connection:
        connection.default_channel.queue_delete(made.conf.task_default_queue)
    made.close()
    close_stores()


def length_of(connection: Any, queue: str) -> int:
    """How many messages wait in a queue of another broker."""
    # Redis knows no empty queue; so not passively.
    return int(connection.default_channel.queue_declare(queue, durable=True, auto_delete=False).message_count)


@pytest.mark.parametrize("as_step", [False, True])
def test_a_killed_relay_loses_nothing(
    other_app: Celery, broker_dsn: str, server: Any, tmp_path: Path, as_step: bool
) -> None:
    queue = other_app.conf.task_default_queue
    program = tmp_path / "relaying.py"
    # A Celery worker takes from another queue, so that what is sent on stays to be looked at.
    work = (
        "app.Worker(pool='solo', queues=[queue + '-none'], pidfile=None).start()"
        if as_step
        else ("Relay(app, app.conf.pgbg_dsn, settings_of(app)).run()")
    )
    program.write_text(
        textwrap.dedent(f"""
        from celery_pgbg.broker.relay import Relay
        from celery_pgbg.configuration import settings_of
        from tests.broker.test_sending_in import make_app
        queue = {queue!r}
        app = make_app({other_app.conf.broker_url!r}, {broker_dsn!r})
        app.conf.update(task_default_queue=queue, pgbg_relay={as_step}, broker_connection_retry_on_startup=True)
        {work}
        """)
    )
    ids = [str(uuid.uuid4()) for _ in range(400)]
    with psycopg.connect(broker_dsn) as connection, celery_pgbg.sending_in(connection):
        for number, task_id in enumerate(ids):
            other_app.tasks["shop.ship"].apply_async((number,), task_id=task_id)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with other_app.connection_for_read() as there:
        for wanted in (50, 150):
            relay = subprocess.Popen([sys.executable, str(program)], env=environment)
            eventually("some are sent on", lambda wanted=wanted: length_of(there, queue) > wanted)
            relay.send_signal(signal.SIGKILL)
            relay.wait()
    Relay(other_app, broker_dsn, settings_of(other_app)).run(is_done=is_empty(server))
    came = relayed(other_app)
    # At least once; the first of each in order; and what is sent twice is what one batch had.
    assert list(dict.fromkeys(came)) == [(task_id, number) for number, task_id in enumerate(ids)]
    assert len(came) <= len(ids) + 2 * 100
