"""Deploys of the Celery worker: the statement survives, and its effects happen once. Faults: ``tests/faults``."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import group

from tests.effects import assert_revoked_is_gone, effects, running
from tests.fix_celery import Shop
from tests.fix_server import HASTY
from tests.waiting import eventually

WAIT = 60


@pytest.fixture(params=["redis", "amqp"])
def broker(request: pytest.FixtureRequest, hasty_redis: str) -> str:
    """Each broker in turn."""
    return hasty_redis if request.param == "redis" else str(request.getfixturevalue("amqp_url"))


@pytest.fixture
def shop(new_shop: Callable[..., Shop], broker: str, redis_url: str, dsn: str) -> Shop:
    """An app of the test's own, whose messages come back soon after a Redis consumer is lost."""
    options = HASTY if broker.startswith("redis") else {}
    return new_shop(broker, f"{redis_url}/10", pgbg_dsn=dsn, broker_transport_options=options)


def test_a_warm_shutdown_waits_for_the_statement(shop: Shop, table: str, database: Any) -> None:
    worker = shop.start_worker()
    result = shop.task("insert").delay(table, "x", 2)
    shop.wait_active(result)
    assert worker.stop() == 0
    assert result.state == "SUCCESS"
    assert effects(database, table) == ["x"]
    shop.start_worker()
    assert shop.task("double").delay(1).get(timeout=WAIT) == 2
    assert effects(database, table) == ["x"]


def test_a_cold_shutdown_leaves_the_statement_running_and_the_next_worker_attaches(
    shop: Shop, table: str, database: Any
) -> None:
    worker = shop.start_worker()
    result = shop.task("insert").delay(table, "x", 6)
    pid = shop.wait_active(result)["worker_pid"]
    worker.send(signal.SIGQUIT)
    worker.wait()
    assert running(database, result.id) == [pid]
    shop.start_worker()
    assert result.get(timeout=WAIT) == 1
    assert "attached" in shop.workers[-1].text() or effects(database, table) == ["x"]
    assert effects(database, table) == ["x"]


def test_a_cold_shutdown_is_orderly_beside_python_tasks(shop: Shop, table: str, database: Any, tmp_path: Path) -> None:
    worker = shop.start_worker()
    python = shop.task("wait_for").delay(str(tmp_path / "never"))
    result = shop.task("insert").delay(table, "x", 6)
    shop.wait_active(python)
    pid = shop.wait_active(result)["worker_pid"]
    worker.send(signal.SIGQUIT)
    assert worker.wait() == 0, worker.text()
    assert "Unrecoverable" not in worker.text()
    assert running(database, result.id) == [pid]
    shop.start_worker()
    assert result.get(timeout=WAIT) == 1
    assert effects(database, table) == ["x"]


def test_a_python_task_cannot_be_terminated_which_is_said(shop: Shop, tmp_path: Path) -> None:
    worker = shop.start_worker()
    result = shop.task("wait_for").delay(str(tmp_path / "end"))
    shop.wait_active(result)
    [reply] = shop.app.control.revoke(result.id, terminate=True, reply=True, timeout=5, destination=[worker.nodename])
    assert "cannot terminate Python tasks" in str(reply)
    (tmp_path / "end").touch()
    # Celery 5.6 has written REVOKED meanwhile.
    eventually("SUCCESS", lambda: shop.app.AsyncResult(result.id).state == "SUCCESS")


def test_our_own_sessions_may_be_ended_at_any_time(shop: Shop, table: str, database: Any) -> None:
    worker = shop.start_worker()
    results = [shop.task("insert").delay(table, str(i), 2) for i in range(4)]
    for result in results:
        shop.wait_active(result)
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s"
    ended = database.execute(query, [f"pgbg %{worker.nodename}%"]).fetchall()
    assert len(ended) >= 2
    assert [result.get(timeout=WAIT) for result in results] == [1] * 4
    assert effects(database, table) == ["0", "1", "2", "3"]
    later = shop.task("insert").delay(table, "revoked", 60)
    shop.wait_active(later)
    database.execute(query, [f"pgbg %{worker.nodename}%"])
    later.revoke(terminate=True)
    eventually("REVOKED", lambda: later.state == "REVOKED")
    assert_revoked_is_gone(database, later.id)


def test_a_crash_amid_short_tasks_loses_none_and_repeats_none(
    new_shop: Callable[..., Shop], amqp_url: str, redis_url: str, dsn: str, table: str, database: Any
) -> None:
    """On RabbitMQ only: Redis hands messages out before anybody has them on record, so a crash may lose one."""
    shop = new_shop(amqp_url, f"{redis_url}/10", pgbg_dsn=dsn)
    values = [f"{number:03}" for number in range(300)]
    first, second = shop.start_worker(), shop.start_worker()
    results = group(shop.task("audit").s(table, value) for value in values).apply_async()
    eventually("some are done", lambda: len(effects(database, table)) > 40)
    first.kill()
    assert results.get(timeout=WAIT) == [1] * len(values)
    assert effects(database, table) == values
    assert second.process.poll() is None
    query = "SELECT count(DISTINCT pid) FROM celery_pgbg.execution WHERE task_id = ANY(%s)"
    (workers,) = database.execute(query, [[result.id for result in results]]).fetchone()
    assert workers < len(values) / 2, "most were handed over"
