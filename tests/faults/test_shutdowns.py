"""Deploys: soft, cold and warm shutdown, each ``pgbg_on_shutdown``, the impatient and the brutal ones."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import pytest

from tests.effects import CELERY_VERSION, effects, running
from tests.faults.conftest import ALONE, BROKERS, proxy_of, through
from tests.faults.held import Held
from tests.faults.moments import HeldTask, Moment
from tests.fix_celery import Shop
from tests.waiting import eventually

WAIT = 60
#: What our pool logs.
WAITS = "waiting for running SQL tasks"


# A cold shutdown that detaches is tested on both brokers in tests/acceptance/test_survival.py; a soft one is a
# cold one after a while, and the broker matters only where the message goes back.
@pytest.mark.parametrize(
    ("how", "kind", "broker"),
    [
        ("detach", "soft", "redis"),
        ("detach", "soft", "amqp"),
        ("cancel", "cold", "redis"),
        ("cancel", "soft", "amqp"),
        ("wait", "cold", "amqp"),
        ("wait", "soft", "redis"),
    ],
)
def test_a_shutdown_does_as_configured(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any, how: str, kind: str, broker: str
) -> None:
    shop = fault_shop(broker, dsn)
    settings = {"pgbg_on_shutdown": how, "worker_soft_shutdown_timeout": 0.5 if kind == "soft" else 0}
    worker = shop.start_worker(*ALONE, **settings)
    held = Held(shop, table, database)
    worker.send(signal.SIGQUIT)
    if how == "wait":
        eventually("it waits", lambda: WAITS in worker.text())
        assert running(database, held.result.id) == [held.pid]
        held.release()
        worker.wait()
        assert held.result.state == "SUCCESS"
    else:
        worker.wait()
        assert running(database, held.result.id) == ([held.pid] if how == "detach" else [])
    assert "Traceback" not in worker.text()
    held.release()
    shop.start_worker(*ALONE)
    assert held.result.get(timeout=WAIT) == [{"v": "done"}]
    assert shop.task("double").delay(1).get(timeout=WAIT) == 2
    assert effects(database, table) == ["x"]


@pytest.mark.skipif(CELERY_VERSION < (5, 5), reason="Celery 5.4 stops nothing in the signal's handler")
@pytest.mark.parametrize("broker", BROKERS)
def test_a_cold_shutdown_that_waits_comes_while_the_event_loop_holds_locks(
    fault_shop: Callable[..., Shop],
    dsn: str,
    table: str,
    database: Any,
    broker: str,
    holds: Path,
) -> None:
    shop = fault_shop(broker, dsn)
    worker = shop.start_worker(*ALONE, "-I", "tests.apps.locked", pgbg_on_shutdown="wait")
    held = Held(shop, table, database)
    file = holds / "loop"
    file.touch()
    eventually("the loop holds the locks", file.with_suffix(".held").exists)
    worker.send(signal.SIGQUIT)
    eventually("it waits", lambda: WAITS in worker.text())
    held.release()
    eventually("the statement has ended", lambda: not running(database, held.result.id))
    file.unlink()
    worker.wait()
    assert held.result.get(timeout=WAIT) == [{"v": "done"}]
    shop.start_worker(*ALONE)
    assert shop.task("double").delay(1).get(timeout=WAIT) == 2
    # Redis delivers again what was not acknowledged within the test's two seconds.
    assert broker == "redis" or held.result.id not in shop.workers[-1].text(), "it was acknowledged"
    assert effects(database, table) == ["x"]


def test_a_cold_shutdown_comes_in_the_middle_of_a_message(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any
) -> None:
    """Celery's handler asks RabbitMQ to stop, and would take the rest of the message for the answer."""
    shop = fault_shop("amqp", dsn)
    with proxy_of(shop) as proxy:
        worker = shop.start_worker(*ALONE, broker=through(proxy, shop), pgbg_on_shutdown="wait")
        held = Held(shop, table, database)
        proxy.stall_after(b"the middle")
        text = f"the middle {'of a message' * 100}"
        doubled = shop.task("double").delay(text)
        eventually("it has half of a message", lambda: proxy.has_stalled)
        worker.send(signal.SIGQUIT)
        proxy.resume()
        eventually("it waits", lambda: WAITS in worker.text())
        held.release()
        # Else it would take until RabbitMQ gives the connection up.
        worker.wait(30)
    assert held.result.get(timeout=WAIT) == [{"v": "done"}]
    again = shop.start_worker(*ALONE)
    assert doubled.get(timeout=WAIT) == 2 * text
    assert held.result.id not in again.text(), "it was acknowledged"
    assert effects(database, table) == ["x"]


def test_a_drain_that_outlasts_the_brokers_patience_keeps_its_messages(
    fault_shop: Callable[..., Shop], dsn: str, tmp_path: Path
) -> None:
    """RabbitMQ drops a connection without heartbeats, and gives its messages to others: a Python task ran twice."""
    settings = {"broker_heartbeat": 1, "task_acks_late": True, "broker_connection_retry": False}
    shop = fault_shop("amqp", dsn, **settings)
    worker = shop.start_worker(*ALONE)
    results = [shop.task("wait_for").delay(str(tmp_path / name)) for name in ("first", "second")]
    for result in results:
        shop.wait_active(result)
    worker.send(signal.SIGTERM)
    eventually("it stops", lambda: "Warm shutdown" in worker.text())
    for name in ("first", "second"):
        # A connection that says nothing shows how long RabbitMQ's patience lasts.
        _be_dropped(shop)
        (tmp_path / name).touch()
        results[name == "second"].get(timeout=WAIT)
    assert worker.wait() == 0
    again = shop.start_worker(*ALONE)
    assert shop.task("double").delay(1).get(timeout=WAIT) == 2
    assert not any(result.id in again.text() for result in results), "they were acknowledged"


def _be_dropped(shop: Shop) -> None:
    with kombu.Connection(shop.app.conf.broker_url, heartbeat=1) as connection:
        connection.connect()
        with pytest.raises(OSError, match=r"closed|reset"):
            connection.drain_events(timeout=WAIT)


def test_a_second_sigterm_does_not_hurry_a_warm_shutdown(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any
) -> None:
    shop = fault_shop("redis", dsn)
    worker = shop.start_worker(*ALONE)
    held = Held(shop, table, database)
    for count in (1, 2):
        worker.send(signal.SIGTERM)
        eventually("it has the signal", lambda n=count: worker.text().count("Warm shutdown") == n)
    assert worker.process.poll() is None
    held.release()
    assert worker.wait() == 0, worker.text()
    assert held.result.state == "SUCCESS"
    assert effects(database, table) == ["x"]


@pytest.mark.skipif(CELERY_VERSION < (5, 5), reason="Celery 5.4 takes any number of SIGQUIT for one")
def test_who_will_not_wait_any_longer_may_leave_the_statement(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any
) -> None:
    shop = fault_shop("amqp", dsn)
    worker = shop.start_worker(*ALONE, pgbg_on_shutdown="wait")
    held = Held(shop, table, database)
    for count in (1, 2):
        worker.send(signal.SIGQUIT)
        eventually("it has the signal", lambda n=count: worker.text().count("Cold shutdown") == n)
    assert WAITS in worker.text()
    assert worker.process.poll() is None
    worker.send(signal.SIGQUIT)
    worker.wait()
    assert running(database, held.result.id) == [held.pid]
    shop.start_worker(*ALONE)
    held.release()
    assert held.result.get(timeout=WAIT) == [{"v": "done"}]
    assert effects(database, table) == ["x"]


def test_a_cold_shutdown_in_the_gate(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any, tmp_path: Path
) -> None:
    shop = fault_shop("amqp", dsn)
    worker = shop.start_worker(*ALONE)
    task = HeldTask(shop, Moment.IN_GATE, dsn, tmp_path, table)
    task.wait_held()
    worker.send(signal.SIGQUIT)
    worker.wait()
    assert "Traceback" not in worker.text()
    shop.start_worker(*ALONE)
    task.release()
    assert task.result.get(timeout=WAIT) == [{"v": task.task_id}]
    assert effects(database, table) == [task.task_id]


def test_a_container_that_is_started_again_finds_its_statements(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any
) -> None:
    shop = fault_shop("amqp", dsn)
    worker = shop.start_worker(*ALONE)
    held = Held(shop, table, database)
    worker.kill()
    again = shop.launch_worker(*ALONE, number=0)
    again.wait_ready()
    assert again.nodename == worker.nodename
    assert shop.wait_active(held.result)["worker_pid"] == held.pid
    held.release()
    assert held.result.get(timeout=WAIT) == [{"v": "done"}]
    assert effects(database, table) == ["x"]
