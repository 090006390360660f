"""SQL tasks on Celery's own pools: they run in background workers there too."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery.exceptions import TaskRevokedError

from tests.effects import CELERY_VERSION, effects, held, revoke_after, running, runs
from tests.fix_celery import Shop
from tests.fix_server import missing
from tests.waiting import eventually

WAIT = 60

#: Pools whose tasks run beside the consumer, so that it hears of a revoke.
BESIDE = ["prefork", "threads", "gevent", "eventlet"]


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str) -> Iterator[Callable[[str], Shop]]:
    """For each pool an app with one Celery worker, started when first asked for."""
    made: dict[str, Shop] = {}
    environment = pytest.MonkeyPatch()

    def shop_on(pool: str) -> Shop:
        if pool in ("gevent", "eventlet") and importlib.util.find_spec(pool) is None:
            missing(f"{pool} is not installed")
        if pool not in made:
            directory = tmp_path_factory.mktemp(pool)
            made[pool] = Shop(directory, f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn, worker_pool=pool)
            with environment.context() as patch:
                if pool == "eventlet":
                    patch.setenv("PSYCOPG_WAIT_FUNC", "wait_select")
                made[pool].start_worker("-P", pool, "-c4")
        return made[pool]

    yield shop_on
    for shop in made.values():
        shop.close()


@pytest.fixture
def shop(shops: Callable[[str], Shop], pool: str) -> Shop:
    """The app whose Celery worker has the pool of the test's parameter."""
    return shops(pool)


@pytest.mark.parametrize("pool", [*BESIDE, "solo"])
def test_a_sql_task_runs_and_returns_on_any_pool(shop: Shop, table: str, database: Any) -> None:
    results = [shop.task("add").delay(i) for i in range(6)]
    assert [result.get(timeout=WAIT)[0]["total"] for result in results] == [i + 2 for i in range(6)]
    assert shop.task("insert").delay(table, "x").get(timeout=WAIT) == 1
    assert effects(database, table) == ["x"]
    with pytest.raises(psycopg.errors.DivisionByZero):
        shop.task("divide").delay(1, 0).get(timeout=WAIT)
    assert shop.task("vacuum").delay(table).get(timeout=WAIT) == "VACUUM"


@pytest.mark.parametrize("pool", [*BESIDE, "solo"])
def test_an_answer_that_comes_in_parts_is_read(shop: Shop, pool: str) -> None:
    """psycopg 3.2 has a ``wait_selector`` that fails there."""
    assert len(shop.task("large").delay(5_000_000).get(timeout=WAIT)) == 5_000_000


@pytest.mark.parametrize("pool", BESIDE)
def test_waiting_tasks_of_one_celery_worker_overlap(shop: Shop, database: Any) -> None:
    results = [shop.task("sleep").delay(300) for _ in range(3)] + [shop.task("standalone_sleep").delay(300)]
    for result in results:
        eventually(f"{result.id} runs beside the others", lambda result=result: running(database, result.id))
    assert all(running(database, result.id) for result in results)
    shop.app.control.revoke([result.id for result in results], terminate=True)
    for result in results:
        with pytest.raises(TaskRevokedError):
            result.get(timeout=WAIT)
        eventually("the statement is gone", lambda result=result: not running(database, result.id))


@pytest.mark.parametrize("pool", BESIDE)
def test_a_revoke_stops_the_statement_and_only_that_statement(shop: Shop, table: str, database: Any) -> None:
    revoked = shop.task("insert").delay(table, "revoked", 60)
    kept = shop.task("insert").delay(table, "kept", 2)
    for result in (revoked, kept):
        eventually("it runs", lambda result=result: running(database, result.id))
    revoked.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=WAIT)
    assert kept.get(timeout=WAIT) == 1
    eventually("the statement is gone", lambda: not running(database, revoked.id))
    assert effects(database, table) == ["kept"]


def test_a_revoke_on_prefork_ends_no_process(shops: Callable[[str], Shop]) -> None:
    shop = shops("prefork")
    result = shop.task("sleep").delay(60)
    child = shop.wait_active(result)["worker_pid"]
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT)
    os.kill(child, 0)


def test_revoke_and_finish_at_the_same_moment_end_in_one_way_on_prefork(
    shops: Callable[[str], Shop], table: str, database: Any
) -> None:
    shop = shops("prefork")
    results = []
    for number in range(30):
        result = shop.task("insert").delay(table, str(number), 0.05)
        results.append((number, result, revoke_after(random.uniform(0.03, 0.3), result)))
    for _, result, timer in results:
        timer.join()
        eventually("ended", lambda result=result: result.state in ("SUCCESS", "REVOKED"))

    def finished() -> list[str]:
        states = {number: shop.app.AsyncResult(result.id).state for number, result, _ in results}
        return sorted(str(number) for number, state in states.items() if state == "SUCCESS")

    eventually("effects and states agree", lambda: effects(database, table) == finished())
    eventually("none runs", lambda: not any(running(database, result.id) for _, result, _ in results))


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_that_is_revoked_before_its_statement_never_runs_it(
    shop: Shop, pool: str, table: str, database: Any, tmp_path: Path
) -> None:
    result = shop.task("insert_later").delay(table, str(tmp_path / "go"))
    shop.wait_active(result)
    [reply] = shop.app.control.revoke(
        result.id, terminate=True, reply=True, timeout=5, destination=[shop.workers[0].nodename]
    )
    # Celery's thread pool cannot stop Python code, and says so.
    assert ("does not implement kill_job" in str(reply)) == (pool == "threads")
    (tmp_path / "go").touch()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT)
    assert shop.task("insert").delay(table, "later").get(timeout=WAIT) == 1
    assert effects(database, table) == ["later"]


@pytest.mark.skipif(psycopg.pq.__impl__ == "python", reason="psycopg in pure Python yields by itself")
def test_eventlet_is_refused_where_psycopg_would_stop_every_greenlet() -> None:
    code = (
        "import eventlet; eventlet.monkey_patch()\n"
        "from celery import Celery; from celery_pgbg.runners import runner_of\n"
        "app = Celery('a'); app.conf.pgbg_dsn = 'host=h'; runner_of(app)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigurationError: psycopg does not yield to eventlet" in done.stderr


#: A sender of which each thread is a greenlet: while one waits for a result, another stores it.
GREEN_SENDER = """
import sys
import uuid
{patch}
import threading
from celery import Celery
import celery_pgbg

app = Celery("sender", backend="pgbg+" + sys.argv[1])
waiting = threading.Event()
threading.Thread(target=lambda: (waiting.wait(), app.backend.store_result(sys.argv[2], "stored", "SUCCESS"))).start()
print(app.AsyncResult(sys.argv[2]).get(interval=0.2, on_interval=waiting.set))
"""


@pytest.mark.parametrize(
    ("library", "patch", "wait_function"),
    [
        ("gevent", "from gevent import monkey; monkey.patch_all()", None),
        ("eventlet", "import eventlet; eventlet.monkey_patch()", "wait_select"),
        ("eventlet", "import eventlet; eventlet.monkey_patch()", None),
    ],
)
def test_a_sender_of_greenlets_gets_results(dsn: str, library: str, patch: str, wait_function: str | None) -> None:
    pytest.importorskip(library)
    task_id = f"green-{uuid.uuid4()}"
    environment = {key: value for key, value in os.environ.items() if key != "PSYCOPG_WAIT_FUNC"}
    if wait_function:
        environment["PSYCOPG_WAIT_FUNC"] = wait_function
    command = [sys.executable, "-c", GREEN_SENDER.format(patch=patch), dsn, task_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT, env=environment)
    assert done.stdout.strip() == "stored", done.stderr
    is_polling = library == "eventlet" and wait_function is None and psycopg.pq.__impl__ != "python"
    assert ("PSYCOPG_WAIT_FUNC" in done.stderr) is is_polling


# --- time limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "limits", "error"),
    [
        ("prefork", {"soft_time_limit": 1}, "SoftTimeLimitExceeded"),
        ("prefork", {"time_limit": 1}, "TimeLimitExceeded"),
        ("gevent", {"time_limit": 1}, "TimeLimitExceeded"),
    ],
)
def test_a_time_limit_stops_the_statement(
    shop: Shop, table: str, database: Any, limits: dict[str, int], error: str
) -> None:
    result = shop.task("insert").apply_async((table, "x", 60), **limits)
    alone = shop.task("standalone_sleep").apply_async((60,), **limits)
    for limited in (result, alone):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - Celery rebuilds the class, named below
            limited.get(timeout=WAIT)
        assert type(caught.value).__name__ == error
        eventually("the statement is gone", lambda limited=limited: not running(database, limited.id))
    assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]
    assert effects(database, table) == []


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_time_limit_that_is_not_acknowledged_has_the_task_run_again(
    shop: Shop, pool: str, sequence: str, database: Any
) -> None:
    if pool == "prefork" and CELERY_VERSION < (5, 5):
        pytest.skip("Celery 5.4 drops the message where prefork's time limit is not acknowledged")
    result = shop.task("sleep_the_first_time").apply_async((sequence,), time_limit=1)
    eventually("it has run again", lambda: runs(database, sequence) >= 2)
    eventually("success", lambda: shop.app.AsyncResult(result.id).state == "SUCCESS")


def test_a_soft_time_limit_in_the_middle_of_a_launch_runs_nothing(
    shops: Callable[[str], Shop], table: str, database: Any
) -> None:
    shop = shops("prefork")
    task_id = f"held {table}"
    key = database.execute("SELECT celery_pgbg.attempt_key('delivery', %s, 0)", [task_id]).fetchone()[0]
    stopping = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'pgbg stop%' AND wait_event_type = 'Lock'"
    )
    with held(database, key):
        result = shop.task("insert").apply_async((table, "x", 60), task_id=task_id, soft_time_limit=2)
        eventually("the time limit has passed", lambda: database.execute(stopping).rowcount)
    with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
        result.get(timeout=WAIT)
    assert [shop.task("insert").delay(table, str(i)).get(timeout=WAIT) for i in range(8)] == [1] * 8
    assert effects(database, table) == [str(i) for i in range(8)]


# --- what becomes of processes -----------------------------------------------------------------------------


def test_a_killed_child_of_prefork_loses_nothing_and_repeats_nothing(
    shops: Callable[[str], Shop], table: str, database: Any
) -> None:
    shop = shops("prefork")
    with held(database, 1):
        result = shop.task("insert_when_free").delay(table, 1)
        child = shop.wait_active(result)["worker_pid"]
        pids = eventually("it runs", lambda: running(database, result.id))
        os.kill(child, signal.SIGKILL)
        eventually(
            "another child has it", lambda: (shop.active(result.id) or {}).get("worker_pid") not in (None, child)
        )
        assert running(database, result.id) == pids
    assert result.get(timeout=WAIT) == 1
    assert effects(database, table) == ["x"]


def test_children_of_prefork_come_and_go_with_their_sessions(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str, database: Any
) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn, worker_pool="prefork")
    worker = shop.start_worker("-P", "prefork", "-c2", "--max-tasks-per-child=2")
    results = [shop.task("add").delay(i) for i in range(8)]
    assert [result.get(timeout=WAIT)[0]["total"] for result in results] == [i + 2 for i in range(8)]
    query = "SELECT DISTINCT launcher_pid FROM celery_pgbg.execution WHERE task_id = ANY(%s)"
    launchers = [pid for (pid,) in database.execute(query, [[result.id for result in results]])]
    # Two tasks each at most; some may have had one, and Redis delivers again what took too long.
    assert len(launchers) >= 4
    assert worker.stop() == 0
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
    eventually("their sessions are gone", lambda: database.execute(query, [launchers]).fetchone() == (0,))


def test_a_cold_shutdown_of_prefork_leaves_the_statement_running(
    new_shop: Callable[..., Shop], redis_url: str, dsn: str, table: str, database: Any
) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn, worker_pool="prefork")
    worker = shop.start_worker("-P", "prefork", "-c2")
    with held(database, 1):
        result = shop.task("insert_when_free").delay(table, 1)
        shop.wait_active(result)
        pids = eventually("it runs", lambda: running(database, result.id))
        worker.send(signal.SIGQUIT)
        worker.wait()
        assert running(database, result.id) == pids
        shop.start_worker("-P", "prefork", "-c2")
        shop.wait_active(result)
        assert running(database, result.id) == pids
    assert result.get(timeout=WAIT) == 1
    assert effects(database, table) == ["x"]
