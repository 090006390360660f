"""Everyday work over every broker: transports, kinds of queues, routing, priorities, a mixed fleet, restarts."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
import redis
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError
from psycopg import sql

from celery_pgbg.devserver import DevServerError
from celery_pgbg.devserver.brokers import Broker, RabbitServer, RedisServer
from tests.effects import CELERY_VERSION, assert_revoked_is_gone, effects, held, running
from tests.fix_celery import Shop
from tests.fix_server import missing
from tests.waiting import eventually

WAIT = 60

B = TypeVar("B", bound=Broker)

#: Kombu's transports that carry broadcasts, and so a revoke.
TRANSPORTS = ["pgbg", "redis", "classic queues", "quorum queues", "filesystem"]


def settings_of(
    transport: str, directory: Path, dsn: str, redis_url: str, amqp_url: Callable[[], str]
) -> dict[str, Any]:
    """Broker and settings of a transport."""
    match transport:
        case "pgbg":
            return {"broker": "pgbg://"}
        case "redis":
            return {"broker": f"{redis_url}/9"}
        case "classic queues":
            return {"broker": amqp_url()}
        case "quorum queues":
            if CELERY_VERSION < (5, 5):
                pytest.skip("Celery 5.4 has no task_default_queue_type")
            return {"broker": amqp_url(), "task_default_queue_type": "quorum", "worker_detect_quorum_queues": True}
        case "filesystem":
            (directory / "messages").mkdir()
            folders = {f"data_folder_{way}": str(directory / "messages") for way in ("in", "out")}
            options = {**folders, "control_folder": str(directory / "control"), "polling_interval": 0.1}
            return {"broker": "filesystem://", "broker_transport_options": options}
        case "tables":
            broker = "sqla+" + dsn.replace("postgresql://", "postgresql+psycopg://")
            return {"broker": broker}
    raise ValueError(transport)


@pytest.fixture(scope="module")
def shops(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Shop]]:
    """For each transport an app with one Celery worker, started when first asked for."""
    made: dict[str, Shop] = {}

    def shop_on(transport: str) -> Shop:
        if transport not in made:
            directory = tmp_path_factory.mktemp("broker")
            settings = settings_of(transport, directory, dsn, redis_url, lambda: request.getfixturevalue("amqp_url"))
            made[transport] = Shop(directory, settings.pop("broker"), f"{redis_url}/10", pgbg_dsn=dsn, **settings)
            made[transport].start_worker()
        return made[transport]

    yield shop_on
    for shop in made.values():
        shop.close()


@pytest.fixture
def shop(shops: Callable[[str], Shop], transport: str) -> Shop:
    """The app on the transport of the test's parameter."""
    return shops(transport)


def again_after_torn_files(test: Callable[[Shop, str, Any], None]) -> Callable[..., None]:
    """Run a test again if its Celery worker has ended because kombu read a file that was just being written."""

    @wraps(test)
    def running_again(shop: Shop, table: str, database: Any) -> None:
        for attempt in range(3):
            try:
                return test(shop, table, database)
            except Exception:
                on_files = shop.app.conf.broker_url.startswith("filesystem")
                if attempt == 2 or not on_files or not _TORN.search(shop.workers[-1].text()):
                    raise
            shop.start_worker()
            database.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table)))
        return None

    return running_again


_TORN = re.compile(r"kombu/transport/filesystem\.py.*JSONDecodeError: Expecting value: line 1 column 1", re.DOTALL)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # kombu's models
@pytest.mark.parametrize("transport", [*TRANSPORTS, "tables"])
@again_after_torn_files
def test_sql_tasks_and_canvases_run_on_any_broker(shop: Shop, table: str, database: Any) -> None:
    add, total = shop.task("add"), shop.task("total")
    assert chord([add.s(i) for i in range(6)], total.s()).delay().get(timeout=WAIT) == sum(range(6)) + 12
    with pytest.raises(psycopg.errors.DivisionByZero):
        shop.task("divide").delay(1, 0).get(timeout=WAIT)
    assert shop.task("vacuum").delay(table).get(timeout=WAIT) == "VACUUM"
    assert shop.task("insert").apply_async((table, "later"), countdown=1).get(timeout=WAIT) == 1
    assert effects(database, table) == ["later"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@again_after_torn_files
def test_a_revoke_reaches_the_celery_worker_over_any_broker(shop: Shop, table: str, database: Any) -> None:
    result = shop.task("insert").delay(table, "x", 60)
    eventually("it runs", lambda: running(database, result.id))
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT)
    assert_revoked_is_gone(database, result.id)
    assert effects(database, table) == []


@pytest.mark.parametrize("transport", TRANSPORTS)
@again_after_torn_files
def test_a_retry_comes_back_over_any_broker(shop: Shop, table: str, database: Any) -> None:
    sequence = f"{table}_{uuid.uuid4().hex[:8]}"
    database.execute(sql.SQL("CREATE SEQUENCE {}").format(sql.Identifier(sequence)))
    assert shop.task("divide_with_retries").delay(sequence).get(timeout=WAIT) == [{"quotient": 1}]


def test_the_quorum_queue_is_one(shops: Callable[[str], Shop]) -> None:
    shop = shops("quorum queues")
    arguments = {"x-queue-type": "classic"}
    with shop.app.connection_for_read() as connection, pytest.raises(Exception, match="x-queue-type"):
        connection.default_channel.queue_declare(shop.queue, durable=True, auto_delete=False, arguments=arguments)
    assert "Global QoS is disabled" in shop.workers[0].text()


@pytest.mark.parametrize("transport", ["redis", "classic queues"])
def test_a_task_of_higher_priority_goes_first(
    new_shop: Callable[..., Shop],
    transport: str,
    redis_url: str,
    dsn: str,
    table: str,
    database: Any,
    request: pytest.FixtureRequest,
) -> None:
    # Redis takes the lowest number first, and RabbitMQ the highest.
    first, last = (0, 9) if transport == "redis" else (9, 0)
    broker = f"{redis_url}/9" if transport == "redis" else request.getfixturevalue("amqp_url")
    options = {"queue_order_strategy": "priority"} if transport == "redis" else {}
    shop = new_shop(
        broker, f"{redis_url}/10", pgbg_dsn=dsn, task_queue_max_priority=9, broker_transport_options=options
    )
    shop.start_worker("-c1")
    with held(database, 2):
        blocker = shop.task("insert_when_free").delay(table, 2)
        eventually("it runs", lambda: running(database, blocker.id))
        insert = shop.task("insert")
        results = [insert.apply_async((table, f"low {i}"), priority=last) for i in range(3)]
        results.append(insert.apply_async((table, "high"), priority=first))
    assert [result.get(timeout=WAIT) for result in results] == [1] * 4
    rows = database.execute(sql.SQL("SELECT v FROM {} ORDER BY ctid").format(sql.Identifier(table))).fetchall()
    assert [v for (v,) in rows] == ["x", "high", "low 0", "low 1", "low 2"]


def test_a_mixed_fleet_shares_one_app(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = new_shop(f"{redis_url}/9", f"pgbg+{dsn}", pgbg_dsn=dsn, worker_pool="prefork")
    python, sql_queue = f"{shop.queue}-python", f"{shop.queue}-sql"
    routes = {f"shop.{name}": {"queue": python} for name in ("double", "total")} | {"shop.*": {"queue": sql_queue}}
    shop.app.conf.task_routes = routes
    prefork = shop.start_worker("-Q", python, "-c2", task_routes=routes)
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "celery_pgbg.pool:TaskPool")
    ours = shop.start_worker("-Q", sql_queue, "-P", "custom", "-c8", task_routes=routes)
    add, double, total, fail = (shop.task(name) for name in ("add", "double", "total", "fail"))
    assert chord([add.s(i) for i in range(5)], total.s()).delay().get(timeout=WAIT) == sum(range(5)) + 10
    assert chain(double.s(2), add.s(3), double.si(4)).delay().get(timeout=WAIT) == 8
    mixed = group(add.s(1), double.s(1), chain(double.s(5), add.s(1))).apply_async()
    assert mixed.get(timeout=WAIT) == [[{"total": 3}], 2, [{"total": 11}]]
    failed = chain(double.s(1), fail.si(), double.s()).delay()
    with pytest.raises(psycopg.errors.RaiseException, match="failed on purpose"):
        failed.get(timeout=WAIT)
    assert not re.search(r"Task shop\.(add|fail)\[", prefork.text())
    assert not re.search(r"Task shop\.(double|total)\[", ours.text())
    stats = shop.app.control.inspect([prefork.nodename, ours.nodename], timeout=5).stats()
    assert stats[prefork.nodename]["pool"]["implementation"] == "celery.concurrency.prefork:TaskPool"
    assert stats[ours.nodename]["pool"]["implementation"] == "celery_pgbg.pool:TaskPool"


# --- brokers that go away --------------------------------------------------------------------------------


@pytest.fixture
def own_rabbit() -> Iterator[RabbitServer]:
    """A RabbitMQ of the test's own, which it may stop."""
    yield from own(RabbitServer(f"brokers-{uuid.uuid4().hex[:6]}"))


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may stop."""
    yield from own(RedisServer(f"brokers-{uuid.uuid4().hex[:6]}"))


def own(server: B) -> Iterator[B]:
    try:
        server.start()
    except DevServerError as exc:
        missing(str(exc))
    yield server
    server.purge()


def test_rabbitmq_restarts_under_load(
    new_shop: Callable[..., Shop], own_rabbit: RabbitServer, redis_url: str, dsn: str, table: str, database: Any
) -> None:
    """With two Celery workers: one gives its tasks up when the connection is lost, the other does not."""
    url = own_rabbit.start()
    blocked: list[Any] = []
    shops = []
    with held(database, 3):
        for cancel in (False, True):
            options = {"worker_cancel_long_running_tasks_on_connection_loss": cancel}
            shop = new_shop(url, f"{redis_url}/10", pgbg_dsn=dsn, **options)
            shop.start_worker("-c8")
            blocked += [shop.task("insert_when_free").delay(table, 3) for _ in range(3)]
            shops.append(shop)
        pids = [eventually("it runs", lambda result=result: running(database, result.id)) for result in blocked]
        own_rabbit.stop()
        for shop in shops:
            eventually("it is noticed", lambda shop=shop: "Trying to re-establish" in shop.workers[0].text())
        own_rabbit.start()
        for shop in shops:
            eventually("all are attached", lambda shop=shop: shop.workers[0].text().count("attached") == 3)
        assert [running(database, result.id) for result in blocked] == pids
    assert [result.get(timeout=WAIT) for result in blocked] == [1] * 6
    assert [shop.task("insert").delay(table, "later").get(timeout=WAIT) for shop in shops] == [1, 1]
    assert effects(database, table) == ["later"] * 2 + ["x"] * 6


def test_a_redis_that_drops_its_connections_is_connected_to_again(
    new_shop: Callable[..., Shop], own_redis: RedisServer, redis_url: str, dsn: str, table: str, database: Any
) -> None:
    url = own_redis.start()
    shop = new_shop(f"{url}/0", f"{redis_url}/10", pgbg_dsn=dsn)
    worker = shop.start_worker("-c12")
    with held(database, 3):
        blocked = [shop.task("insert_when_free").delay(table, 3) for _ in range(4)]
        pids = [eventually("it runs", lambda result=result: running(database, result.id)) for result in blocked]
        with redis.Redis.from_url(url) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        eventually("the loss is noticed", lambda: "Trying to re-establish the connection" in worker.text())
        eventually("all are attached", lambda: worker.text().count("attached") == 4)
        assert [shop.task("insert").delay(table, str(i)).get(timeout=WAIT) for i in range(4)] == [1] * 4
        assert [running(database, result.id) for result in blocked] == pids
    assert [result.get(timeout=WAIT) for result in blocked] == [1] * 4
    assert effects(database, table) == ["0", "1", "2", "3", "x", "x", "x", "x"]


def test_a_redis_that_restarts_empty_loses_no_outcome(
    new_shop: Callable[..., Shop], own_redis: RedisServer, redis_url: str, dsn: str, table: str, database: Any
) -> None:
    shop = new_shop(f"{own_redis.start()}/0", f"{redis_url}/10", pgbg_dsn=dsn)
    worker = shop.start_worker("-c8")
    with held(database, 3):
        blocked = [shop.task("insert_when_free").delay(table, 3) for _ in range(4)]
        for result in blocked:
            eventually("it runs", lambda result=result: running(database, result.id))
        own_redis.stop()
        eventually("the loss is noticed", lambda: "Connection refused" in worker.text())
        own_redis.start()
    assert [result.get(timeout=WAIT) for result in blocked] == [1] * 4
    # Some versions of kombu fail over a Redis that is down, and the Celery worker ends, as with any pool.
    node = shop.app.control.inspect([worker.nodename], timeout=1)
    eventually("it has ended, or is back", lambda: worker.process.poll() is not None or node.ping())
    if worker.process.poll() is not None:
        shop.start_worker("-c8")
    assert [shop.task("insert").delay(table, str(i)).get(timeout=WAIT) for i in range(4)] == [1] * 4
    assert effects(database, table) == ["0", "1", "2", "3", "x", "x", "x", "x"]


def test_a_celery_worker_waits_for_its_broker_at_start(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str, own_redis: RedisServer
) -> None:
    url = own_redis.start()
    own_redis.stop()
    shop = new_shop(f"{url}/0", f"{redis_url}/10", pgbg_dsn=dsn, broker_connection_retry_on_startup=True)
    worker = shop.launch_worker()
    eventually("it tries again", lambda: "Trying again in" in worker.text())
    own_redis.start()
    worker.wait_ready()
    assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]


def test_a_celery_worker_that_may_not_retry_its_broker_waits_for_its_statements_and_ends(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str, table: str, database: Any, own_redis: RedisServer
) -> None:
    shop = new_shop(f"{own_redis.start()}/0", f"{redis_url}/10", pgbg_dsn=dsn, broker_connection_retry=False)
    worker = shop.start_worker()
    with held(database, 4):
        result = shop.task("insert_when_free").delay(table, 4)
        eventually("it runs", lambda: running(database, result.id))
        own_redis.stop()
        eventually("the loss is noticed", lambda: "broker_connection_retry=False" in worker.text())
    assert worker.wait() == 1
    assert result.get(timeout=WAIT) == 1
    assert effects(database, table) == ["x"]
