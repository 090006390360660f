"""What users of other transports have reported, tried on ours: the numbers are those of their reports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from celery_pgbg.broker.station import close_stations
from tests.broker.test_transport import declare, send
from tests.fix_celery import Shop
from tests.waiting import eventually

NewShop = Callable[..., Shop]

ALONE = ("--without-mingle", "--without-gossip")

HOLDERS = """
SELECT count(*) FROM pg_locks AS l
JOIN celery_pgbg.consumer AS c
    ON (l.classid::bigint << 32) | l.objid::bigint = celery_pgbg.lock_key('consumer', c.id::text)
WHERE l.locktype = 'advisory' AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND c.name LIKE %s || '@%%'
"""


@pytest.fixture(scope="module")
def broker_dsn(new_broker_database: Callable[[], str]) -> str:
    """A database in which tasks run, too."""
    return new_broker_database()


@pytest.fixture
def our_shop(new_shop: NewShop, broker_dsn: str, server: Any) -> Any:
    """Make an app whose broker and result backend are both in one database."""
    url = f"pgbg+{broker_dsn}"
    yield lambda **settings: new_shop(url, url, pgbg_dsn=broker_dsn, **settings)
    close_stations()


def taken(server: Any) -> int:
    """How many messages consumers have."""
    return int(server.execute("SELECT count(*) FROM celery_pgbg.message WHERE taken_by IS NOT NULL").fetchone()[0])


ORPHAN = """
import os, sys, time
import celery_pgbg
from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

connection = Connection(sys.argv[1])
message = connection.default_channel.basic_get("q")
if os.fork() == 0:
    print("taken by", os.getppid(), flush=True)
time.sleep(60)
"""


def test_a_forked_process_does_not_keep_what_its_parent_had(
    connection: Connection, broker_dsn: str, server: Any
) -> None:
    """https://github.com/celery/celery/issues/284, and any task that uses multiprocessing."""
    declare(connection)
    send(connection, "a")
    command = [sys.executable, "-c", ORPHAN, f"pgbg+{broker_dsn}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == f"taken by {parent.pid}\n"
            assert server.execute(HOLDERS, [str(parent.pid)]).fetchone() == (1,)
            parent.kill()
            eventually("its lock is gone", lambda: server.execute(HOLDERS, [str(parent.pid)]).fetchone() == (0,), 10)
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_an_orphaned_child_of_prefork_does_not_keep_its_parents_messages(
    our_shop: NewShop, server: Any, tmp_path: Path
) -> None:
    shop = our_shop(worker_pool="prefork", worker_prefetch_multiplier=4)
    worker = shop.start_worker("-c1", "--max-tasks-per-child=1", *ALONE)
    # The next child is forked by a process that has its sessions.
    first = shop.task("something").delay()
    eventually("the first has ended", first.ready)
    busy = shop.task("wait_for").delay(str(tmp_path / "go"))
    eventually("it runs", lambda: shop.active(busy.id))
    next_one = shop.task("something").delay()
    eventually("the next one is taken", lambda: taken(server))
    worker.process.kill()
    try:
        eventually(
            "its lock is gone", lambda: server.execute(HOLDERS, [str(worker.process.pid)]).fetchone() == (0,), 10
        )
        shop.start_worker("-c1", *ALONE)
        eventually("it has ended", next_one.ready)
    finally:
        (tmp_path / "go").touch()


@pytest.mark.parametrize("pool", ["celery_pgbg.pool:TaskPool", "prefork"])
def test_a_task_that_ends_during_a_warm_shutdown_is_acknowledged_at_once(
    our_shop: NewShop, server: Any, tmp_path: Path, pool: str
) -> None:
    """https://github.com/celery/celery/issues/3802: else it runs again if the drain is cut short."""
    shop = our_shop(worker_pool=pool, task_acks_late=True)
    worker = shop.start_worker("-c2", *ALONE)
    quick, slow = (shop.task("wait_for").delay(str(tmp_path / name)) for name in ("quick", "slow"))
    eventually("both run", lambda: shop.active(quick.id) and shop.active(slow.id))
    worker.send(signal.SIGTERM)
    eventually("its event loop has ended", lambda: not shop.app.control.ping(timeout=1))
    (tmp_path / "quick").touch()
    try:
        eventually("only the other message is left", lambda: taken(server) == 1)
        assert worker.process.poll() is None
    finally:
        (tmp_path / "slow").touch()


def cut(server: Any, shop: Shop) -> int:
    """End the sessions with which an app's Celery workers take messages."""
    pids = [str(worker.process.pid) for worker in shop.workers]
    query = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE substring(application_name FROM '^pgbg broker takes (\\d+)@') = ANY (%s)"
    )
    return int(server.execute(query, [pids]).fetchone()[0])


def test_a_celery_worker_that_lost_its_broker_again_and_again_still_consumes(our_shop: NewShop, server: Any) -> None:
    """https://github.com/celery/celery/issues/8030 and 8091, 10205; and 987: it consumes from all its queues."""
    shop = our_shop()
    worker = shop.start_worker("-c2")
    shop.app.control.add_consumer(f"{shop.queue}-later", destination=[worker.nodename], reply=True)
    for number in range(1, 6):
        eventually("it has sessions", lambda: cut(server, shop) >= 1)
        eventually("it says so", lambda n=number: worker.text().count("Connection to broker lost") >= n)
    for queue in (shop.queue, f"{shop.queue}-later"):
        assert shop.task("add").apply_async((1,), queue=queue).get(timeout=60) == [{"total": 3}]
    eventually("it answers", lambda: shop.app.control.inspect(timeout=2).ping())


def test_tasks_with_an_eta_keep_no_others_from_running(our_shop: NewShop, server: Any) -> None:
    """https://github.com/celery/celery/issues/2731 and 1718; and 9512: so it is after a lost connection."""
    shop = our_shop()
    worker = shop.start_worker("-c2", *ALONE)
    for _ in range(50):
        shop.task("add").apply_async((1,), countdown=3600)
    assert shop.task("add").delay(1).get(timeout=60) == [{"total": 3}]
    assert cut(server, shop) >= 1
    eventually("it says so", lambda: "Connection to broker lost" in worker.text())
    results = [shop.task("add").delay(number) for number in range(20)]
    assert [result.get(timeout=60) for result in results] == [[{"total": number + 2}] for number in range(20)]


def test_no_more_is_taken_than_can_run(our_shop: NewShop, server: Any) -> None:
    """https://github.com/celery/celery/issues/4537 and 6500."""
    shop = our_shop(worker_prefetch_multiplier=1)
    shop.start_worker("-c2", *ALONE)
    server.execute("SELECT pg_advisory_lock(4537)")
    try:
        results = [
            shop.task("statement").delay(f"SELECT pg_advisory_xact_lock_shared(4537)::text, {number}")
            for number in range(6)
        ]
        eventually("two run", lambda: sum(bool(shop.active(result.id)) for result in results) == 2)
        assert taken(server) == 2
    finally:
        server.execute("SELECT pg_advisory_unlock(4537)")
    for result in results:
        result.get(timeout=60)
    eventually("all are acknowledged", lambda: server.execute(MESSAGES).fetchone() == (0,))


MESSAGES = """
SELECT count(*) FROM celery_pgbg.message JOIN celery_pgbg.queue ON queue.id = queue_id WHERE name LIKE 'pgbg-test-%'
"""


def test_many_messages_that_wait_at_the_start_are_run(our_shop: NewShop, server: Any) -> None:
    """https://github.com/celery/celery/issues/1847."""
    shop = our_shop()
    results = [shop.task("statement_reusing").delay(f"SELECT {number} AS n") for number in range(300)]
    shop.start_worker("-c4", *ALONE)
    assert [result.get(timeout=60) for result in results] == [[{"n": number}] for number in range(300)]


def test_no_queue_is_left_by_whoever_asked_or_looked(our_shop: NewShop, server: Any) -> None:
    """https://github.com/celery/celery/issues/1758 and 6575: reply queues that pile up."""
    shop = our_shop()
    shop.start_worker("-c1")
    shop.app.control.inspect(timeout=1).ping()
    queues = "SELECT array_agg(name ORDER BY name) FROM celery_pgbg.queue"
    before = server.execute(queues).fetchone()
    for _ in range(5):
        shop.app.control.inspect(timeout=0.2).stats()
    assert server.execute(queues).fetchone() == before
    worker = shop.workers[0]
    worker.stop()
    left = server.execute(queues).fetchone()[0]
    assert [name for name in left if worker.nodename in name] == []


def test_sending_fails_soon_where_the_broker_is_away(our_shop: NewShop) -> None:
    """https://github.com/celery/celery/issues/4296 and 6911: a call that hangs for ever."""
    app = Celery("away", broker="pgbg+postgresql://postgres@127.0.0.1:1/x", set_as_current=False)
    began = time.monotonic()
    with pytest.raises(OperationalError):
        app.send_task("x", retry=False)
    with pytest.raises(OperationalError):
        app.send_task("x")
    assert time.monotonic() - began < 30
    app.close()
