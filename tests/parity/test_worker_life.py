"""The life of a Celery worker with our pool: its size, its restart, its end, its start in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.effects import lose, running
from tests.fix_celery import PROJECT
from tests.fix_parity import ALONE, TwinShop
from tests.waiting import eventually

WAIT = 60


@pytest.fixture
def new_shop(tmp_path: Path, redis_url: str, dsn: str) -> Iterator[Callable[..., TwinShop]]:
    """Make the app with our pool."""
    made: list[TwinShop] = []

    def make(**settings: Any) -> TwinShop:
        shop = TwinShop(
            tmp_path, f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn, journal_url=f"{redis_url}/10", **settings
        )
        made.append(shop)
        return shop

    yield make
    for shop in made:
        shop.close()
        for worker in shop.workers:
            print(f"--- {worker.nodename}\n{worker.text()[-4000:]}")


def task(shop: TwinShop, name: str) -> Any:
    return shop.app.tasks[f"sql.{name}"]


def control(shop: TwinShop, command: str, **arguments: Any) -> Any:
    nodename = shop.workers[-1].nodename
    [reply] = shop.app.control.broadcast(command, arguments=arguments, destination=[nodename], reply=True, timeout=10)
    return reply[nodename]


def stats(shop: TwinShop) -> dict[str, Any]:
    nodename = shop.workers[-1].nodename
    found: dict[str, Any] = shop.app.control.inspect([nodename], timeout=5).stats()[nodename]
    return found


# --- size -----------------------------------------------------------------------------------------------------


def test_the_pool_grows_shrinks_and_restarts(
    new_shop: Callable[..., TwinShop], hold: Callable[[], int], database: Any
) -> None:
    shop = new_shop(worker_pool_restarts=True)
    worker = shop.start_worker("-c1", "--max-tasks-per-child=3", "--max-memory-per-child=1000", *ALONE)
    for name in ("tasks", "memory"):
        assert f"worker_max_{name}_per_child has no meaning in this pool" in worker.text()
    keys = [hold() for _ in range(3)]
    waiting = [task(shop, "wait_for_lock").delay(key) for key in keys]
    shop.wait_active(waiting[0])
    assert [shop.active(result.id) for result in waiting[1:]] == [None, None]
    assert "ok" in control(shop, "pool_grow", n=2)
    for result in waiting[1:]:
        shop.wait_active(result)

    before = stats(shop)["pool"]["databases"][0]["launcher_pids"]
    assert "ok" in control(shop, "pool_restart", reload=True)
    assert sorted(shop.active(result.id) is not None for result in waiting) == [True] * 3
    assert "ok" in control(shop, "pool_shrink", n=2)
    later = task(shop, "double").delay(4)
    for key, result in zip(keys, waiting, strict=True):
        database.execute("SELECT pg_advisory_unlock(%s)", [key])
        assert result.get(timeout=WAIT) == ""
    assert later.get(timeout=WAIT) == 8
    pool = stats(shop)["pool"]
    assert (pool["max-concurrency"], pool["databases"][0]["launched"]) == (1, 1)
    assert not set(before) & set(pool["databases"][0]["launcher_pids"])
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s) AND application_name LIKE 'pgbg launcher%%'"
    eventually("the old sessions are gone", lambda: database.execute(query, [before]).fetchone() == (0,))
    assert [task(shop, "double").delay(n).get(timeout=WAIT) for n in range(5)] == [0, 2, 4, 6, 8]


def test_a_restart_with_wrong_settings_changes_nothing(new_shop: Callable[..., TwinShop]) -> None:
    shop = new_shop(worker_pool_restarts=True)
    shop.start_worker("-c2", *ALONE)
    # As a module does that is reloaded with another setting in it.
    reply = control(shop, "pool_restart", modules=["tests.apps.wrong_settings"])
    assert "unknown setting 'pgbg_dns' (did you mean 'pgbg_dsn'?)" in reply["error"]
    assert task(shop, "double").delay(1).get(timeout=WAIT) == 2


def test_the_pool_scales_by_itself_and_its_time_limit_holds(
    new_shop: Callable[..., TwinShop], monkeypatch: pytest.MonkeyPatch, database: Any
) -> None:
    monkeypatch.setenv("AUTOSCALE_KEEPALIVE", "1")
    shop = new_shop()
    shop.start_worker("--autoscale=3,0", "--time-limit=3", *ALONE)
    results = [task(shop, "sleep").delay(60) for _ in range(3)]
    eventually("all run", lambda: all(running(database, result.id) for result in results))
    assert stats(shop)["autoscaler"]["current"] == 3
    for result in results:
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            result.get(timeout=WAIT)
    eventually("scaled down", lambda: stats(shop)["autoscaler"]["current"] == 0)
    assert task(shop, "double").delay(1).get(timeout=WAIT) == 2
    assert "error" in control(shop, "pool_grow", n=1)
    assert "ok" in control(shop, "autoscale", max=5, min=2)
    eventually("scaled", lambda: stats(shop)["pool"]["max-concurrency"] == 2)


# --- its end ----------------------------------------------------------------------------------------------------


def test_a_shutdown_by_remote_control_is_warm(
    new_shop: Callable[..., TwinShop], hold: Callable[[], int], database: Any
) -> None:
    shop = new_shop()
    worker = shop.start_worker("-c2", *ALONE)
    key = hold()
    result = task(shop, "wait_for_lock").delay(key)
    shop.wait_active(result)
    shop.app.control.shutdown(destination=[worker.nodename])
    eventually("shutting down", lambda: "Got shutdown from remote" in worker.text())
    assert running(database, result.id)
    database.execute("SELECT pg_advisory_unlock(%s)", [key])
    assert worker.wait() == 0
    assert result.get(timeout=WAIT) == ""


@pytest.mark.parametrize(
    ("first", "then"), [(signal.SIGTERM, signal.SIGQUIT), (signal.SIGINT, signal.SIGINT)], ids=["TERM QUIT", "INT INT"]
)
def test_a_warm_shutdown_can_be_made_a_cold_one(
    new_shop: Callable[..., TwinShop], hold: Callable[[], int], database: Any, first: int, then: int
) -> None:
    shop = new_shop()
    worker = shop.start_worker("-c2", *ALONE)
    key = hold()
    result = task(shop, "wait_for_lock").delay(key)
    python = shop.app.tasks["python.wait_for_lock"].delay(key)
    pid = shop.wait_active(result)["worker_pid"]
    shop.wait_active(python)
    worker.send(first)
    eventually("warm", lambda: "Warm shutdown" in worker.text() or "will initiate cold shutdown" in worker.text())
    eventually("it waits", lambda: _is_stopping(shop))
    worker.send(then)
    worker.wait(20)
    assert running(database, result.id) == [pid]
    shop.start_worker("-c2", *ALONE)
    database.execute("SELECT pg_advisory_unlock(%s)", [key])
    assert result.get(timeout=WAIT) == ""


def _is_stopping(shop: TwinShop) -> bool:
    """It answers no more."""
    return not shop.app.control.inspect([shop.workers[-1].nodename], timeout=0.3).ping()


def test_a_soft_shutdown_lets_short_tasks_end_and_leaves_long_ones(
    new_shop: Callable[..., TwinShop], hold: Callable[[], int], database: Any
) -> None:
    shop = new_shop(worker_soft_shutdown_timeout=2.0)
    worker = shop.start_worker("-c3", *ALONE)
    short, long = hold(), hold()
    ends, stays = task(shop, "wait_for_lock").delay(short), task(shop, "wait_for_lock").delay(long)
    pid = shop.wait_active(stays)["worker_pid"]
    shop.wait_active(ends)
    worker.send(signal.SIGQUIT)
    eventually("soft", lambda: "Initiating Soft Shutdown" in worker.text())
    database.execute("SELECT pg_advisory_unlock(%s)", [short])
    assert ends.get(timeout=WAIT) == ""
    worker.wait(20)
    assert running(database, stays.id) == [pid]
    assert "succeeded" in worker.text()
    shop.start_worker("-c3", *ALONE)
    database.execute("SELECT pg_advisory_unlock(%s)", [long])
    assert stays.get(timeout=WAIT) == ""
    # What ended was acknowledged, so only the other came again.
    assert ends.id not in shop.workers[-1].text()


def test_sigterm_can_be_made_a_cold_shutdown(
    new_shop: Callable[..., TwinShop], hold: Callable[[], int], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")
    shop = new_shop()
    worker = shop.start_worker("-c2", *ALONE)
    key = hold()
    result = task(shop, "wait_for_lock").delay(key)
    pid = shop.wait_active(result)["worker_pid"]
    worker.send(signal.SIGTERM)
    worker.wait(20)
    assert running(database, result.id) == [pid]
    shop.start_worker("-c2", *ALONE)
    database.execute("SELECT pg_advisory_unlock(%s)", [key])
    assert result.get(timeout=WAIT) == ""


# --- in the background ----------------------------------------------------------------------------------------------


def run_celery(shop: TwinShop, *arguments: str) -> None:
    command = [sys.executable, "-m", "celery", "-A", "tests.apps.parity", *arguments]
    environment = {**os.environ, **shop.environment()}
    subprocess.run(command, env=environment, cwd=PROJECT, check=True, timeout=60, capture_output=True)


def is_alive(pid: int) -> bool:
    # A daemon whose parent is gone may remain as a zombie where nobody reaps.
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_detached_celery_worker(new_shop: Callable[..., TwinShop], tmp_path: Path) -> None:
    shop = new_shop()
    pidfile, log = tmp_path / "worker.pid", tmp_path / "worker.log"
    name = f"detached-{uuid.uuid4().hex[:8]}@test"
    run_celery(
        shop, "worker", "--detach", f"--pidfile={pidfile}", f"--logfile={log}", "-n", name, "-c2", "-l", "INFO", *ALONE
    )
    assert task(shop, "double").delay(4).get(timeout=WAIT) == 8
    pid = int(pidfile.read_text())
    try:
        os.kill(pid, signal.SIGTERM)
        eventually("it has ended", lambda: not is_alive(pid))
        assert "ready" in log.read_text()
        assert not pidfile.exists()
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_celery_multi_starts_and_stops(new_shop: Callable[..., TwinShop], tmp_path: Path) -> None:
    shop = new_shop()
    name = f"multi-{uuid.uuid4().hex[:8]}@test"
    files = [f"--pidfile={tmp_path}/%n.pid", f"--logfile={tmp_path}/%n.log"]
    run_celery(shop, "multi", "start", name, *files, "-A", "tests.apps.parity", "-c2", *ALONE)
    try:
        assert task(shop, "double").delay(4).get(timeout=WAIT) == 8
    finally:
        run_celery(shop, "multi", "stopwait", name, *files)
    assert list(tmp_path.glob("*.pid")) == []


# --- other pools ------------------------------------------------------------------------------------------------------


def test_a_lost_background_worker_is_redelivered_on_another_pool_as_well(
    new_shop: Callable[..., TwinShop], hold: Callable[[], int], database: Any
) -> None:
    shop = new_shop(worker_pool="prefork")
    shop.start_worker("-c1", *ALONE)
    key = hold()
    result = task(shop, "wait_for_lock").delay(key)
    [pid] = eventually("it runs", lambda: running(database, result.id))
    lose(database, result.id)
    eventually("another runs it", lambda: running(database, result.id) not in ([], [pid]))
    assert result.state == "PENDING"
    database.execute("SELECT pg_advisory_unlock(%s)", [key])
    assert result.get(timeout=WAIT) == ""
