"""What the server's functions promise: rights, and lookups that do not read dead rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from celery import Celery
from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub

from celery_pgbg.broker.station import close_stations
from celery_pgbg.errors import ConfigurationError
from tests.waiting import eventually

_ENVELOPE = '{"content_type": "application/json", "content_encoding": "utf-8", "headers": {}}'


def test_a_sender_sends_and_can_do_nothing_else(role: Callable[..., str], connection: Connection, server: Any) -> None:
    declared = Queue("q", max_priority=5)(connection.default_channel)
    declared.declare()
    dsn = role(senders=[])
    with Connection(f"pgbg+{dsn}") as sending:
        queue = Queue("q", message_ttl=0.001)(sending.default_channel)
        queue.declare()
        sending.Producer().publish([1], routing_key="q", priority=3)
        for forbidden in (queue.get, queue.purge, queue.delete, lambda: queue.consume(callback=print)):
            with pytest.raises(ConfigurationError, match="--grant-to"):
                forbidden()
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("SELECT celery_pgbg.send_task('shop.ship', queue => 'q')")
        for statement in (
            "SELECT * FROM celery_pgbg.message",
            "DELETE FROM celery_pgbg.message",
            "INSERT INTO celery_pgbg.message (queue_id, priority, envelope, body) VALUES (1, 1, '', '')",
            "UPDATE celery_pgbg.queue SET message_ttl_ms = 0",
            "SELECT celery_pgbg.register_consumer('x', NULL, NULL)",
            "SELECT * FROM celery_pgbg.consume(1, '{}', '{1}', '{0}', '{0}', '{t}', '{1}', '{9}')",
            "SELECT celery_pgbg.give_back(1, NULL, NULL)",
            "SELECT celery_pgbg.delete_queue('q')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)
    assert [message.payload for message in (declared.get(), declared.get())] == [[1], [[], {}, UNUSED]]


def test_a_sender_is_told_what_it_needs_for_results_and_replies(
    role: Callable[..., str], connection: Connection, server: Any
) -> None:
    dsn = role(senders=[])
    with Celery("shop", broker="pgbg://", backend="pgbg://", set_as_current=False) as app:
        app.conf.pgbg_dsn = dsn
        result = app.send_task("shop.ship")
        for forbidden in (
            lambda: result.state, lambda: result.get(timeout=5), result.forget, app.backend.cleanup,
            lambda: app.control.ping(timeout=1), lambda: app.control.revoke(result.id, reply=True, timeout=1),
        ):  # fmt: skip
            with pytest.raises(ConfigurationError, match="--grant-to"):
                forbidden()
        # It may broadcast, because that is sending.
        result.revoke()


UNUSED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def test_others_cannot_even_send(role: Callable[..., str], connection: Connection) -> None:
    dsn = role()
    with psycopg.connect(dsn, autocommit=True) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT celery_pgbg.send_task('shop.ship')")


def test_functions_are_not_deceived_by_the_senders_names(connection: Connection, broker_dsn: str, server: Any) -> None:
    """Operators and functions of the caller's own, before PostgreSQL's in its search_path."""
    Queue("q")(connection.default_channel).declare()
    with psycopg.connect(broker_dsn, autocommit=True) as session:
        session.execute("""
            CREATE SCHEMA traps;
            CREATE FUNCTION traps.no(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
            CREATE OPERATOR traps.= (LEFTARG = text, RIGHTARG = text, FUNCTION = traps.no);
            CREATE OPERATOR traps.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = traps.no);
            CREATE FUNCTION traps.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';
            SET search_path = traps, pg_catalog;
        """)
        publish = "SELECT celery_pgbg.publish('', 'q', 0, NULL, false, %s, '[1]')"
        assert session.execute(publish, [_ENVELOPE]).fetchone() == (1,)
        session.execute("SET search_path = pg_catalog; DROP SCHEMA traps CASCADE")


def read(server: Any) -> int:
    """How many entries of the indexes of messages were read until now."""
    server.execute("SELECT pg_stat_force_next_flush()")
    entries = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'message'"
    return int(server.execute(entries).fetchone()[0])


def test_a_take_under_an_old_snapshot_reads_no_dead_rows(connection: Connection, broker_dsn: str, server: Any) -> None:
    if server.info.server_version < 150_000:
        pytest.skip("PostgreSQL 14 does not tell at once what was read")
    Queue("q")(connection.default_channel).declare()
    [queue_id] = server.execute("SELECT id FROM celery_pgbg.queue WHERE name = 'q'").fetchone()
    [consumer] = server.execute("SELECT celery_pgbg.register_consumer('test', NULL, NULL)").fetchone()
    query = "SELECT id FROM celery_pgbg.consume(%s, %s, ARRAY[%s], '{0}', ARRAY[%s::bigint], '{f}', '{1}', '{16}')"

    def take(acked: list[int], lowest: int) -> list[int]:
        return [row[0] for row in server.execute(query, [consumer, acked, queue_id, lowest]).fetchall()]

    with psycopg.connect(broker_dsn) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1 FROM pg_class LIMIT 1")
        server.execute(
            "INSERT INTO celery_pgbg.message (queue_id, priority, envelope, body) "
            "SELECT %s, 0, '{}', '' FROM generate_series(1, 3200)",
            [queue_id],
        )
        # One that waits in another queue, and many that this consumer has taken and acknowledged.
        server.execute("INSERT INTO celery_pgbg.message (queue_id, priority, envelope, body) VALUES (0, 0, '{}', '')")
        ids: list[int] = []
        for number in range(200):
            before = read(server) if number == 199 else 0
            lowest = max(ids, default=-1) + 1
            ids = take(ids, lowest)
            assert len(ids) == 16
        # Twice each to take and once to delete, and the versions of each row.
        assert read(server) - before < 16 * 10


def test_a_long_queue_under_an_old_snapshot_is_emptied_without_reading_dead_rows_again(
    connection: Connection, broker_dsn: str, server: Any
) -> None:
    queue = Queue("q")
    queue(connection.default_channel).declare()
    taken = 0

    def take(message: Any) -> None:
        nonlocal taken
        message.ack()
        taken += 1

    with psycopg.connect(broker_dsn) as old, connection.channel() as channel:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1 FROM pg_class LIMIT 1")
        server.execute(
            "INSERT INTO celery_pgbg.message (queue_id, priority, envelope, body) SELECT id, 0, %s, '1'"
            " FROM celery_pgbg.queue, generate_series(1, 10000) WHERE name = 'q'",
            [_ENVELOPE],
        )
        channel.basic_qos(0, 10, False)
        before = read(server)
        with closing(Hub()) as hub, Consumer(channel, [queue], on_message=take):
            connection.register_with_event_loop(hub)
            steps = hub.create_loop()
            while taken < 10_000:
                next(steps)
        close_stations()
        sessions = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgbg broker%'"
        )
        eventually("its sessions have ended", lambda: not server.execute(sessions).rowcount)
        # About 20 for each message; over 200 where each look begins at the ids of 0.3 seconds ago.
        assert read(server) - before < 10_000 * 90


@pytest.fixture(autouse=True)
def _no_sessions() -> Iterator[None]:
    yield
    close_stations()
