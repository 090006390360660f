"""Who dies, and when: effects once, one outcome, and the result arrives.

The moments are those of ``Moment``. All tasks of one test are staged, then somebody dies once, then all
are looked at: a cell of the matrix is one entry of the compared dictionaries.

Cells left out, because they are others by construction:

- ``ON_DISK`` on RabbitMQ: only one task of a server can be there, and to Celery it is one that has not ended;
- a background worker before launch (there is none yet) and before the ack (it is gone already);
- the launcher's and the listener's session on RabbitMQ: no message is touched by their loss, the broker
  cannot tell them from a quiet second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from celery_pgbg.devserver import DevServer
from tests.faults import moments
from tests.faults.conftest import ALONE, BROKERS
from tests.faults.moments import STAGING, HeldTask, Moment
from tests.fix_celery import CeleryWorker, Shop
from tests.waiting import eventually

WAIT = 60

#: So many that those blocked by held launches are not needed by others.
LAUNCHERS = 6


class Stage:
    """One server, an app on each broker with a Celery worker, and tasks held at each moment."""

    def __init__(self, server: DevServer, new_shop: Callable[..., Shop], holds: Path) -> None:
        self.server = server
        self.dsn = str(server.dsn)
        self._new_shop = new_shop
        self._holds = holds
        self.shops: list[Shop] = []
        self._held: list[HeldTask] = []
        moments.prepare(self.dsn)

    def open(self, brokers: Iterable[str]) -> None:
        """Start an app with a Celery worker on each broker."""
        for broker in brokers:
            shop = self._new_shop(broker, self.dsn, pgbg_launchers=LAUNCHERS)
            self.shops.append(shop)
            self.launch_worker(shop)
        for shop in self.shops:
            shop.workers[-1].wait_ready()

    def launch_worker(self, shop: Shop) -> CeleryWorker:
        """Start a Celery worker whose tasks can be held before their acks."""
        return shop.launch_worker("-I", "tests.apps.held", *ALONE)

    def hold(self, at: Iterable[Moment]) -> list[HeldTask]:
        """Send a task for each moment to each app, and wait until each is held there."""
        held = []
        for moment in at:
            shops = self.shops[:1] if moment is Moment.ON_DISK else self.shops
            tasks = [HeldTask(shop, moment, self.dsn, self._holds) for shop in shops]
            self._held += tasks
            for task in tasks:
                task.wait_held()
            held += tasks
        return held

    def release(self) -> None:
        """Let all tasks go on."""
        for task in self._held:
            task.release()

    def check(self, held: list[HeldTask]) -> None:
        """Effects once, one outcome, the right result."""
        results = {task.task_id: task.result.get(timeout=WAIT) for task in held}
        assert results == {task.task_id: [{"v": task.task_id}] for task in held}
        once = {(task.moment, task.task_id): 1 for task in held}
        effects, outcomes = moments.count_effects(self.dsn), moments.count_outcomes(self.dsn)
        assert {(task.moment, task.task_id): effects[task.task_id] for task in held} == once
        assert {(task.moment, task.task_id): outcomes[task.task_id] for task in held} == once

    def check_quiet(self) -> None:
        """Nothing is left: no message is being worked on, no background worker runs."""
        for shop in self.shops:
            nodes = [worker.nodename for worker in shop.workers if worker.process.poll() is None]
            inspect = shop.app.control.inspect(destination=nodes, timeout=2)
            eventually("no task is active", lambda i=inspect: not any((i.active() or {"": [1]}).values()))
        query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_background'"
        with psycopg.connect(self.dsn, autocommit=True) as session:
            eventually("no background worker", lambda: session.execute(query).fetchone() == (0,))


@pytest.fixture
def stage(
    new_server: Callable[..., DevServer],
    fault_shop: Callable[..., Shop],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Stage]:
    """A stage without apps yet."""
    monkeypatch.setenv("PGBG_TEST_HOLDS", str(tmp_path))
    made = Stage(new_server(), fault_shop, tmp_path)
    yield made
    made.release()


def end_processes(dsn: str, backend_type: str, application_name: str) -> int:
    """Terminate processes of the server by their type and name, a regular expression."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = %s AND application_name ~ %s"
    with psycopg.connect(dsn, autocommit=True) as session:
        return len(session.execute(query, [backend_type, application_name]).fetchall())


def test_celery_worker_killed(stage: Stage) -> None:
    stage.open(BROKERS)
    with moments.hold_commits(stage.dsn):
        held = stage.hold(STAGING)
        for shop in stage.shops:
            shop.workers[0].kill()
            stage.launch_worker(shop)
    stage.release()
    stage.check(held)
    launches = moments.count_launches(stage.dsn)
    assert {task.moment: launches[task.task_id] for task in held} == dict.fromkeys(Moment, 1)
    stage.check_quiet()


@pytest.mark.parametrize("whose", ["launcher", "listener"])
def test_session_lost(stage: Stage, whose: str) -> None:
    stage.open(["redis"])
    # While it launches, a launcher goes by the name of the task.
    name, number = ("^pgbg (?!listener)", LAUNCHERS) if whose == "launcher" else ("^pgbg listener", 1)
    with moments.hold_commits(stage.dsn):
        held = stage.hold(STAGING)
        assert end_processes(stage.dsn, "client backend", name) == number
    stage.release()
    stage.check(held)
    stage.check_quiet()


def test_background_worker_ended(stage: Stage) -> None:
    stage.open(BROKERS)
    with moments.hold_commits(stage.dsn):
        held = stage.hold([Moment.ON_DISK, Moment.COMMITTING, Moment.RUNNING, Moment.IN_GATE])
        for task in reversed(held):
            assert end_processes(stage.dsn, "pg_background", task.task_id) == 1
    stage.release()
    stage.check(held)
    stage.check_quiet()


def test_server_restarted_or_killed(stage: Stage) -> None:
    stage.open(BROKERS)
    faults: list[Callable[[], Any]] = [
        lambda: stage.server.restart("fast"),
        lambda: stage.server.restart("immediate"),
        lambda: (stage.server.crash(), stage.server.start()),
    ]
    for die in faults:
        with moments.hold_commits(stage.dsn):
            held = stage.hold(STAGING)
            die()
        stage.release()
        stage.check(held)
    stage.check_quiet()
