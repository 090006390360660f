"""Messages that come more than once, and brokers that go: effects once, and what follows still follows."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from celery import chain, chord

from celery_pgbg.devserver.brokers import RabbitServer, RedisServer
from tests.effects import CELERY_VERSION, effects, running
from tests.faults.conftest import ALONE, BROKERS, proxy_of, through
from tests.faults.moments import HeldTask, Moment
from tests.fix_celery import Shop
from tests.fix_server import HASTY
from tests.waiting import eventually

WAIT = 60


@pytest.mark.parametrize("broker", BROKERS)
def test_copies_at_once_and_later_have_their_effects_once_and_what_follows_too(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any, broker: str
) -> None:
    shop = fault_shop(broker, dsn)
    for worker in [shop.launch_worker(*ALONE), shop.launch_worker(*ALONE)]:
        worker.wait_ready()
    insert, task_id = shop.task("insert"), str(uuid.uuid4())
    linked, chained = (insert.si(table, name).set(task_id=f"{name}-{task_id}") for name in ("linked", "chained"))

    def deliver(copies: int) -> None:
        for _ in range(copies):
            result = insert.apply_async((table, "first", 0.5), task_id=task_id, link=[linked], chain=[chained])
        assert result.get(timeout=WAIT) == 1
        for following in (linked, chained):
            assert shop.app.AsyncResult(following.options["task_id"]).get(timeout=WAIT) == 1

    deliver(6)
    deliver(2)
    eventually(
        "all copies were received", lambda: sum(w.text().count(f"insert[{task_id}] suc") for w in shop.workers) >= 8
    )
    assert effects(database, table) == ["chained", "first", "linked"]


def test_what_follows_a_task_that_is_redelivered_has_its_effects_once(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any, holds: Path
) -> None:
    shop = fault_shop("amqp", dsn)
    worker = shop.start_worker(*ALONE, "-I", "tests.apps.held")
    insert, add = shop.task("insert"), shop.task("add")
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for task_id in ids:
        (holds / task_id).touch()
    chained = chain(insert.si(table, "first").set(task_id=ids[0]), insert.si(table, "second")).apply_async()
    linked = insert.s(table, "third").set(task_id=ids[1]).on_error(insert.si(table, "never"))
    linked.link(insert.si(table, "fourth").set(task_id=f"linked-{ids[1]}"))
    linked.apply_async()
    summed = chord([add.s(1).set(task_id=ids[2]), add.s(2)])(shop.task("total").s())
    for task_id in ids:
        eventually("it is held before its ack", (holds / task_id).with_suffix(".held").exists)
    # Celery's Redis backend loses a callback that is being sent, and a Python task is acknowledged before it runs.
    assert summed.get(timeout=WAIT) == 7
    worker.kill()
    for task_id in ids:
        (holds / task_id).unlink()
    again = shop.start_worker(*ALONE)
    assert chained.get(timeout=WAIT) == 1
    for task_id in ids:
        eventually("it is delivered again", lambda i=task_id: f"[{i}] succeeded" in again.text())
    eventually("the link too", lambda: f"[linked-{ids[1]}] succeeded" in again.text())
    assert "shop.total" not in again.text().split("ready.")[1]
    assert effects(database, table) == ["first", "fourth", "second", "third"]


def test_a_visibility_timeout_shorter_than_the_task(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any, holds: Path
) -> None:
    shop = fault_shop("redis", dsn)
    worker = shop.start_worker(*ALONE)
    task = HeldTask(shop, Moment.RUNNING, dsn, holds, table)
    task.wait_held()
    eventually("it comes twice more", lambda: worker.text().count(f"{task.task_id} runs already") >= 2)
    assert len(running(database, task.task_id)) == 1
    task.release()
    assert task.result.get(timeout=WAIT) == [{"v": task.task_id}]
    eventually("all are done", lambda: shop.active(task.task_id) is None)
    assert effects(database, table) == [task.task_id]


@pytest.mark.parametrize(("broker", "how"), [("redis", "reset"), ("amqp", "close")])
def test_a_lost_ack_and_a_lost_connection_under_a_statement(
    fault_shop: Callable[..., Shop],
    request: pytest.FixtureRequest,
    dsn: str,
    table: str,
    database: Any,
    holds: Path,
    broker: str,
    how: Literal["reset", "close"],
) -> None:
    shop = fault_shop(broker, dsn)
    with proxy_of(shop) as proxy:
        url, arguments = through(proxy, shop), (*ALONE, "-I", "tests.apps.held")
        worker = shop.start_worker(*arguments, broker=url)
        tasks = [HeldTask(shop, moment, dsn, holds, table) for moment in (Moment.BEFORE_ACK, Moment.RUNNING)]
        for task in tasks:
            task.wait_held()
        assert proxy.cut(how) >= 1
        tasks[0].release()

        def received(task: HeldTask) -> int:
            if worker.process.poll() is not None and len(shop.workers) == 1:
                # Celery 5.7.0 itself may end where Redis is gone and messages are unacknowledged.
                shop.start_worker(*arguments, broker=url)
            return sum(each.text().count(f"[{task.task_id}] received") for each in shop.workers)

        for task in tasks:
            eventually("it is delivered again", lambda t=task: received(t) >= 2)
        tasks[1].release()
        for task in tasks:
            assert task.result.get(timeout=WAIT) == [{"v": task.task_id}]
            eventually("all are done", lambda i=task.task_id: shop.active(i) is None)
        assert shop.task("double").delay(1).get(timeout=WAIT) == 2
        assert effects(database, table) == sorted(task.task_id for task in tasks)
        for each in shop.workers:
            each.kill()


#: With these Celery notices that a connection stalls, and does not wait for answers on it: within seconds.
NOTICES_STALLS = {
    "redis": {"broker_transport_options": {**HASTY, "health_check_interval": 1, "socket_timeout": 2}},
    "amqp": {"broker_transport_options": {"read_timeout": 2}, "broker_heartbeat": 2},
    "pgbg": {"pgbg_answer_timeout": 2},
}


@pytest.mark.skipif(CELERY_VERSION < (5, 7), reason="kombu looks after its Redis connections from 5.7 on")
def test_stalled_connections_to_brokers_under_a_statement_and_before_an_ack(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any, holds: Path
) -> None:
    shops = {broker: fault_shop(broker, dsn) for broker in BROKERS}
    with contextlib.ExitStack() as stack:
        proxies = {broker: stack.enter_context(proxy_of(shop)) for broker, shop in shops.items()}
        for broker, shop in shops.items():
            url = through(proxies[broker], shop)
            shop.launch_worker(*ALONE, "-I", "tests.apps.held", broker=url, **NOTICES_STALLS[broker])
        tasks = [
            HeldTask(shop, moment, dsn, holds, table)
            for shop in shops.values()
            for moment in (Moment.BEFORE_ACK, Moment.RUNNING)
        ]
        for task in tasks:
            task.wait_held()
        for proxy in proxies.values():
            assert proxy.stall() >= 1
        for task in tasks:
            if task.moment is Moment.BEFORE_ACK:
                task.release()
        for task in tasks:
            received = f"[{task.task_id}] received"
            [worker] = task.shop.workers
            eventually("it is delivered again", lambda w=worker, r=received: w.text().count(r) >= 2)
            if task.moment is Moment.RUNNING:
                assert len(running(database, task.task_id)) == 1
                task.release()
        for task in tasks:
            assert task.result.get(timeout=WAIT) == [{"v": task.task_id}]
            eventually("all are done", lambda t=task: t.shop.active(t.task_id) is None)
        for shop in shops.values():
            assert shop.task("double").delay(1).get(timeout=WAIT) == 2
            shop.workers[0].kill()
    assert effects(database, table) == sorted(task.task_id for task in tasks)


def test_redis_crashes_under_a_statement(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str, table: str, database: Any, holds: Path
) -> None:
    server = RedisServer(f"faults-{os.getpid()}")
    try:
        shop = new_shop(f"{server.start()}/0", f"{redis_url}/10", pgbg_dsn=dsn, broker_transport_options=HASTY)
        shop.start_worker(*ALONE)
        crash_under_a_statement(server, shop, dsn, table, database, holds)
        # Celery 5.7.0 itself ends where Redis is gone and messages are unacknowledged.
        shop.start_worker(*ALONE)
        assert shop.task("double").delay(1).get(timeout=WAIT) == 2
        shop.close()
    finally:
        server.purge()


def test_rabbitmq_times_out_and_crashes_under_a_statement(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str, table: str, database: Any, holds: Path
) -> None:
    settings = {"consumer_timeout": 1000, "channel_tick_interval": 500}
    server = RabbitServer(f"faults-{os.getpid()}", settings=settings)
    try:
        shop = new_shop(server.start(), f"{redis_url}/10", pgbg_dsn=dsn, broker_channel_error_retry=True)
        worker = shop.start_worker(*ALONE)
        task = HeldTask(shop, Moment.RUNNING, dsn, holds, table)
        task.wait_held()
        eventually("it comes once more", lambda: f"{task.task_id} runs already" in worker.text())
        task.release()
        assert task.result.get(timeout=WAIT) == [{"v": task.task_id}]
        assert effects(database, table) == [task.task_id]
        database.execute(f"TRUNCATE {table}")
        crash_under_a_statement(server, shop, dsn, table, database, holds)
        assert shop.task("double").delay(1).get(timeout=WAIT) == 2
        shop.close()
    finally:
        server.purge()


def crash_under_a_statement(
    server: RedisServer | RabbitServer, shop: Shop, dsn: str, table: str, database: Any, holds: Path
) -> None:
    task = HeldTask(shop, Moment.RUNNING, dsn, holds, table)
    task.wait_held()
    server.crash()
    task.release()
    assert task.result.get(timeout=WAIT) == [{"v": task.task_id}]
    server.start()
    assert effects(database, table) == [task.task_id]
