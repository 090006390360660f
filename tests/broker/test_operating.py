"""``celery pgbg messages``, as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from click.testing import CliRunner
from kombu import Connection

from celery_pgbg.broker.station import close_stations
from celery_pgbg.database.sessions import connect
from celery_pgbg.operating.broker_health import check_leftovers, check_our_broker
from celery_pgbg.operating.cli import pgbg as commands
from tests.waiting import eventually


@pytest.fixture
def pgbg(broker_dsn: str, server: Any) -> Iterator[Callable[..., str]]:
    """Run a command of ``celery pgbg``."""
    app = Celery("shop", broker="pgbg://", set_as_current=False)
    app.conf.update(pgbg_dsn=broker_dsn, pgbg_max_deliveries=1, task_default_queue="orders")
    app.send_task("shop.ship", (1,), task_id="an id\x1b[2J", priority=3)
    with app.connection_for_write() as connection:
        connection.SimpleQueue("orders", no_ack=False).queue.get().requeue()
    app.send_task("shop.ship", (2,))

    def run(*arguments: str) -> str:
        outcome = CliRunner().invoke(commands, arguments, obj=SimpleNamespace(app=app))
        assert outcome.exit_code == 0, outcome.output
        return outcome.output

    yield run
    app.close()
    close_stations()


def test_dead_letters_are_shown_and_sent_back_and_a_queue_is_purged(pgbg: Callable[..., str]) -> None:
    queues = {row["name"]: row for row in json.loads(pgbg("messages", "--json"))}
    assert queues["orders"]["waiting"] == queues["celery_pgbg.dead_letters"]["waiting"] == 1
    shown = pgbg("messages", "--dead")
    assert "shop.ship" in shown
    assert "orders" in shown
    assert "\x1b" not in shown
    assert "sent back 1 messages" in pgbg("messages", "--dead", "--send-back")
    [first, _] = json.loads(pgbg("messages", "orders", "--json"))
    assert (first["task_id"], first["deliveries"], first["dead_from"]) == ("an id\x1b[2J", 0, None)
    assert "deleted 2 messages" in pgbg("messages", "orders", "--purge", "--yes")
    assert "shop.ship" not in pgbg("messages", "orders")


def test_a_misspelt_queue_is_an_error(pgbg: Callable[..., str]) -> None:
    for arguments in (["messages", "ordres"], ["messages", "ordres", "--purge", "--yes"]):
        with pytest.raises(AssertionError, match="there is no queue 'ordres'"):
            pgbg(*arguments)


def test_the_doctor_of_an_app_with_another_broker_sees_what_no_relay_forwards(
    pgbg: Callable[..., str], broker_dsn: str, server: Any
) -> None:
    server.execute("TRUNCATE celery_pgbg.message")
    with connect(broker_dsn, application_name="test", connect_timeout=10) as session:
        assert list(check_leftovers(session)) == []
        server.execute("SELECT celery_pgbg.publish('', 'celery_pgbg.outbox', 0, NULL, false, '{}', '')")
        assert [finding.level for finding in check_leftovers(session)] == ["ok"]
        server.execute("UPDATE celery_pgbg.message SET sent_at = sent_at - interval '2 hours'")
        [finding] = check_leftovers(session)
    assert finding.level == "warning"
    assert "a relay" in finding.said


def test_stats_show_the_queues(pgbg: Callable[..., str]) -> None:
    [orders] = [row for row in json.loads(pgbg("stats", "--queues", "--json")) if row["name"] == "orders"]
    assert orders["waiting"] == 1
    assert orders["oldest_seconds"] > 0
    assert orders["bytes"] > 100
    assert "orders" in pgbg("stats")
    assert json.loads(pgbg("stats", "--json")) == []


def test_inspect_stats_shows_what_waits_in_the_queues_of_a_celery_worker(broker_dsn: str, server: Any) -> None:
    app = Celery("shop", broker="pgbg://", backend="pgbg://", set_as_current=False)
    app.conf.update(pgbg_dsn=broker_dsn, task_default_queue="orders", worker_prefetch_multiplier=1)
    for _ in range(3):
        app.send_task("shop.ship", countdown=0, priority=0)
    # Of another queue, as far as the Celery worker knows, and one that does not end.
    server.execute("UPDATE celery_pgbg.message SET taken_by = 0")
    with start_worker(app, pool="celery_pgbg.pool:TaskPool", perform_ping_check=False):
        # Held by a consumer that does not exist, so nobody takes them meanwhile.
        server.execute("UPDATE celery_pgbg.message SET taken_by = NULL, expires_at = '-infinity' WHERE taken_by = 0")
        [stats] = eventually("it answers", lambda: app.control.inspect(timeout=5).stats()).values()
    [queue] = [queue for queue in stats["pool"]["queues"] if queue["name"] == "orders"]
    assert queue["waiting"] == 3
    assert queue["oldest_seconds"] > 0
    assert queue["bytes"] > 100
    app.close()
    close_stations()


def test_the_doctor_looks_at_the_broker(pgbg: Callable[..., str], broker_dsn: str, server: Any) -> None:
    def findings(dsn: str = broker_dsn) -> dict[str, Any]:
        with Connection(f"pgbg+{dsn}") as connection:
            return {finding.what: finding for finding in check_our_broker(connection)}

    found = findings()
    assert {what: finding.level for what, finding in found.items()} == {
        "broker rights": "ok", "backlog": "ok", "lost consumers": "ok", "vacuum": "ok",
    }  # fmt: skip
    server.execute("UPDATE celery_pgbg.message SET sent_at = sent_at - interval '2 hours'")
    [gone] = server.execute("INSERT INTO celery_pgbg.consumer (name) VALUES ('gone') RETURNING id").fetchone()
    # A program that ended with no message is nothing to report.
    assert findings()["lost consumers"].level == "ok"
    server.execute("UPDATE celery_pgbg.message SET taken_by = %s WHERE dead_from IS NOT NULL", [gone])
    server.execute("ALTER TABLE celery_pgbg.message SET (autovacuum_enabled = off)")
    try:
        found = findings()
    finally:
        server.execute("ALTER TABLE celery_pgbg.message RESET (autovacuum_enabled)")
    assert {found[what].level for what in ("backlog", "lost consumers", "vacuum")} == {"warning"}
    assert "the oldest for 2h00m" in found["backlog"].said
    assert "1 ended without giving back 1 messages" in found["lost consumers"].said
    assert "autovacuum is off" in found["vacuum"].said


def test_the_doctor_says_that_a_sender_may_only_send(role: Callable[..., str], connection: Connection) -> None:
    with Connection(f"pgbg+{role(senders=[])}") as sender:
        [finding] = check_our_broker(sender)
    assert (finding.level, finding.what) == ("warning", "broker rights")
