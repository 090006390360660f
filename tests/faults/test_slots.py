"""More tasks than the server has slots: they wait, nothing fails, nobody starves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from celery_pgbg.devserver import DevServer
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Raised, Returned
from celery_pgbg.settings import read_settings
from tests.effects import effects, running
from tests.faults.conftest import ALONE
from tests.faults.held import Held
from tests.faults.moments import prepare
from tests.fix_celery import CeleryWorker, Shop
from tests.fix_runner import in_background, order, run
from tests.shapes import reshape
from tests.waiting import eventually

WAIT = 60

#: Of the server's four, one is taken by PostgreSQL's own launcher of logical replication.
SLOTS = 3


@pytest.fixture
def small_dsn(new_server: Callable[..., DevServer]) -> str:
    """A server with few slots."""
    made = str(new_server(max_worker_processes=SLOTS + 1).dsn)
    prepare(made)
    return made


@pytest.fixture
def session(small_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of the test's own there."""
    with psycopg.connect(small_dsn, autocommit=True) as made:
        yield made


def waiting(worker: CeleryWorker, shop: Shop) -> int:
    """How many tasks of a Celery worker wait for a slot."""
    replies = shop.app.control.inspect(destination=[worker.nodename], timeout=2).stats() or {}
    return sum(
        database["waiting_for_slot"] for reply in replies.values() for database in reply["pool"].get("databases", [])
    )


def ready_messages(shop: Shop) -> int:
    """How many messages no Celery worker has taken yet."""
    with shop.app.connection() as connection:
        return int(connection.default_channel.queue_declare(shop.queue, passive=True).message_count)


def finished_by(session: psycopg.Connection[Any]) -> list[str]:
    """The Celery workers' names, in the order in which their tasks finished."""
    query = "SELECT nodename FROM celery_pgbg.execution JOIN celery_pgbg.outcome USING (task_id) ORDER BY finished_at"
    return [nodename for (nodename,) in session.execute(query)]


def test_more_tasks_than_slots_from_two_celery_workers(
    fault_shop: Callable[..., Shop], small_dsn: str, session: psycopg.Connection[Any]
) -> None:
    shop = fault_shop("amqp", small_dsn)
    for worker in [shop.launch_worker(*ALONE, "-c4"), shop.launch_worker(*ALONE, "-c4")]:
        worker.wait_ready()
    held = [Held(shop, "effects", session) for _ in range(SLOTS)]
    results = [shop.task("insert").delay("effects", f"{i}", 0.05) for i in range(20)]
    eventually("all threads wait", lambda: sum(waiting(worker, shop) for worker in shop.workers) == 8 - SLOTS)
    assert ready_messages(shop) == len(results) + SLOTS - 8
    for task in held:
        task.release()
    assert [result.get(timeout=WAIT) for result in results] == [1] * len(results)
    assert len(effects(session, "effects")) == len(results) + SLOTS
    assert min(finished_by(session).count(worker.nodename) for worker in shop.workers) >= 4


def test_a_celery_worker_with_much_to_do_does_not_starve_another(
    fault_shop: Callable[..., Shop], small_dsn: str, session: psycopg.Connection[Any]
) -> None:
    busy, other = fault_shop("amqp", small_dsn), fault_shop("amqp", small_dsn)
    for worker in [busy.launch_worker(*ALONE), other.launch_worker(*ALONE)]:
        worker.wait_ready()
    held = [Held(busy, "effects", session) for _ in range(SLOTS)]
    many = [busy.task("insert").delay("effects", "busy", 0.1) for _ in range(40)]
    few = [other.task("insert").delay("effects", "other", 0.1) for _ in range(6)]
    eventually("all of the other's wait", lambda: waiting(other.workers[0], other) == len(few))
    eventually("the busy one's threads wait", lambda: waiting(busy.workers[0], busy) == 8 - SLOTS)
    for task in held:
        task.release()
    for result in [*few, *many]:
        assert result.get(timeout=WAIT) == 1
    order_of_ends = finished_by(session)
    last_of_other = len(order_of_ends) - order_of_ends[::-1].index(other.workers[0].nodename)
    assert last_of_other < len(order_of_ends) - 10


@pytest.mark.parametrize("how", [{}, {"reuse": True}, {"atomic": False}], ids=str)
def test_handles_that_are_kept_for_safety_take_no_slot_from_a_task(
    small_dsn: str, session: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture, how: dict[str, bool]
) -> None:
    if session.execute("SELECT to_regproc('pg_background_wait')").fetchone() != (None,):
        reshape(session, "1.8")
    asleep = "SELECT pg_background_launch_v2('SELECT pg_sleep(600)') FROM generate_series(2, %s)"
    session.execute(asleep, [SLOTS])
    runner = Runner(small_dsn, read_settings({}))
    assert isinstance(run(runner, order("SELECT 1", **how)), Returned)
    runner.close()
    assert "no free background worker slot" not in caplog.text


def test_the_oldest_goes_first(small_dsn: str, session: psycopg.Connection[Any]) -> None:
    runner = Runner(small_dsn, read_settings({}))
    session.execute("SELECT pg_advisory_lock(1)")
    blocking = [in_background(runner, order("SELECT pg_advisory_xact_lock_shared(1)")) for _ in range(SLOTS)]
    for watch, _, _ in blocking:
        eventually("it runs", lambda w=watch: w.pid)
    waiting = []
    for number in range(6):
        asked = order("SELECT pg_sleep(0.02)", task_id=f"{number}")
        waiting.append(in_background(runner, asked))
        eventually("it stands in line", lambda n=number: len(runner.line) == n + 1)
    session.execute("SELECT pg_advisory_unlock(1)")
    for _, thread, endings in [*blocking, *waiting]:
        thread.join(WAIT)
        assert isinstance(endings[0], Returned)
    launched = session.execute("SELECT task_id FROM celery_pgbg.execution ORDER BY launched_at").fetchall()
    assert [task_id for (task_id,) in launched[SLOTS:]] == [f"{number}" for number in range(6)]
    runner.close()


def test_a_task_that_waits_for_a_slot_goes_back_at_a_cold_shutdown(
    fault_shop: Callable[..., Shop], small_dsn: str, session: psycopg.Connection[Any]
) -> None:
    shop = fault_shop("amqp", small_dsn)
    worker = shop.start_worker(*ALONE)
    held = [Held(shop, "effects", session) for _ in range(SLOTS)]
    result = shop.task("insert").delay("effects", "waited")
    eventually("it waits", lambda: waiting(worker, shop) == 1)
    worker.send(signal.SIGQUIT)
    worker.wait()
    assert "Traceback" not in worker.text()
    shop.start_worker(*ALONE)
    for task in held:
        task.release()
        assert task.result.get(timeout=WAIT) == [{"v": "done"}]
    assert result.get(timeout=WAIT) == 1
    assert effects(session, "effects") == ["waited", "x", "x", "x"]


def test_a_stop_from_elsewhere_does_not_wait_for_the_slot_of_a_statement_that_stands_alone(
    small_dsn: str, session: psycopg.Connection[Any]
) -> None:
    """As the time limit of a task on prefork, which the Celery worker itself waits for."""
    runner, elsewhere = (Runner(small_dsn, read_settings({})) for _ in range(2))
    session.execute("SELECT public.pg_background_launch('SELECT pg_sleep(600)') FROM generate_series(1, %s)", [SLOTS])
    asked = [order("INSERT INTO effects VALUES ('x')", atomic=False) for _ in range(2)]
    waiting = []
    for number, each in enumerate(asked, 1):
        waiting.append(in_background(runner, each))
        eventually("it stands in line", lambda number=number: len(runner.line) == number)
    stops = [threading.Thread(target=elsewhere.stop, args=(each.attempt, "time limit")) for each in reversed(asked)]
    for stop in stops:
        stop.start()
    for stop in stops:
        stop.join(WAIT)
        assert not stop.is_alive()
    for _, thread, endings in waiting:
        thread.join(WAIT)
        assert isinstance(endings[0], Raised)
        assert endings[0].report.stopped == "time limit"
    session.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'pg_background'"
    )
    assert run(runner, order("SELECT 1", returns="value")) == Returned(1)
    assert effects(session, "effects") == []
    for each in (runner, elsewhere):
        each.close()


def test_who_runs_it_again_may_wait_long_for_a_slot(small_dsn: str, session: psycopg.Connection[Any]) -> None:
    first, second = (Runner(small_dsn, read_settings({"pgbg_sweep_interval": 0.5})) for _ in range(2))
    session.execute("SELECT pg_advisory_lock(1)")
    asked = order("INSERT INTO effects VALUES ('x'); SELECT pg_advisory_xact_lock_shared(1)")
    in_background(first, asked)
    [pid] = eventually("it runs", lambda: running(session, asked.attempt.task_id))
    watch, thread, endings = in_background(second, asked)
    eventually("another is attached", lambda: watch.pid == pid)
    first.close()
    # Somebody else takes its slot, and all others.
    session.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
    session.execute("SELECT public.pg_background_launch('SELECT pg_sleep(600)') FROM generate_series(1, %s)", [SLOTS])
    eventually("it stands in line", lambda: len(second.line) == 1)
    session.execute("SELECT pg_sleep(3)")
    ours = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'pg_background'"
    session.execute(ours)
    eventually("it runs again", lambda: running(session, asked.attempt.task_id))
    session.execute("SELECT pg_advisory_unlock(1)")
    thread.join(WAIT)
    assert [type(ending) for ending in endings] == [Returned], endings
    assert effects(session, "effects") == ["x"]
    second.close()
