"""``atomic=False``: nothing is run twice, and what nobody saw is said to be unknown."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError

from tests.effects import effects, running
from tests.faults.conftest import ALONE
from tests.faults.held import Held
from tests.fix_celery import Shop
from tests.waiting import eventually

WAIT = 60


@pytest.fixture
def shop(fault_shop: Callable[..., Shop], dsn: str) -> Shop:
    """An app on RabbitMQ, which delivers again at once."""
    return fault_shop("amqp", dsn)


def assert_unknown(held: Held, table: str, database: Any) -> None:
    """It was lost, which says nothing of its effects; they are there once."""
    with pytest.raises(WorkerLostError, match="may have partly completed"):
        held.result.get(timeout=WAIT)
    assert effects(database, table) == ["x"]


def test_a_copy_attaches_and_gets_the_same_outcome(shop: Shop, table: str, database: Any) -> None:
    for worker in [shop.launch_worker(*ALONE), shop.launch_worker(*ALONE)]:
        worker.wait_ready()
    held = Held(shop, table, database, "statement_alone")
    copies = [held.send_again() for _ in range(4)]
    eventually("all copies attach", lambda: sum(w.text().count("attached") for w in shop.workers) == 4)
    assert running(database, held.result.id) == [held.pid]
    held.release()
    assert [copy.get(timeout=WAIT) for copy in copies] == ["DO"] * 4
    assert effects(database, table) == ["x"]


@pytest.mark.parametrize("ended", ["after the next Celery worker is there", "before"])
def test_a_killed_celery_worker_leaves_an_unknown_end(shop: Shop, table: str, database: Any, ended: str) -> None:
    worker = shop.start_worker(*ALONE)
    held = Held(shop, table, database, "late_statement_alone")
    worker.kill()
    if ended == "before":
        held.release()
        eventually("it has ended", lambda: not running(database, held.result.id))
    shop.start_worker(*ALONE)
    if ended != "before":
        assert shop.wait_active(held.result)["worker_pid"] == held.pid
        held.release()
    assert_unknown(held, table, database)


@pytest.mark.parametrize("task", ["statement_alone", "late_statement_alone"])
def test_a_cold_shutdown_leaves_it_running_to_an_unknown_end(shop: Shop, table: str, database: Any, task: str) -> None:
    worker = shop.start_worker(*ALONE)
    held = Held(shop, table, database, task)
    worker.send(signal.SIGQUIT)
    worker.wait()
    assert running(database, held.result.id) == [held.pid]
    if task == "late_statement_alone":
        shop.start_worker(*ALONE)
    else:
        assert held.result.state == "FAILURE"
    held.release()
    eventually("it has ended", lambda: not running(database, held.result.id))
    assert_unknown(held, table, database)
