"""Who dies, and when: effects once, one outcome, and the result arrives.

The moments are those of ``Moment``, each of a background worker that was launched for the task, and of one
that had run another and was handed this one (``reuse=True``). All tasks of one test are staged, then somebody
dies once, then all are looked at: a cell of the matrix is one entry of the compared dictionaries.

Cells left out, because they are others by construction:

- ``ON_DISK`` on RabbitMQ: only one task of a server can be there, and to Celery it is one that has not ended.
  One that was handed over is there in a round of its own;
- a background worker before launch, or before an order was placed for reusable ones (there is none yet), and before
  the ack (it is gone already);
- the launcher's and the listener's session on RabbitMQ: no message is touched by their loss, the broker
  cannot tell them from a quiet second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import AdminShutdown, QueryCanceled

from celery_pgbg.devserver import DevServer
from tests.faults import moments
from tests.faults.conftest import ALONE, BROKERS
from tests.faults.moments import STAGING, WITHOUT_WORKER, HeldTask, Moment
from tests.fix_celery import CeleryWorker, Shop
from tests.fix_server import HASTY
from tests.waiting import eventually

WAIT = 60

#: So many that those blocked by held launches are not needed by others.
LAUNCHERS = 8


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
            # Redis would deliver each held task once more every two seconds, until no thread is left for those that
            # are not held: only one that comes after another's death needs to be hasty.
            patient = {"broker_transport_options": {**HASTY, "visibility_timeout": 3600}} if broker == "redis" else {}
            self.launch_worker(shop, **patient)
        for shop in self.shops:
            shop.workers[-1].wait_ready()

    def launch_worker(self, shop: Shop, **settings: Any) -> CeleryWorker:
        """Start a Celery worker whose tasks can be held before their acks."""
        return shop.launch_worker("-I", "tests.apps.held", "-c32", *ALONE, **settings)

    def hold(self, at: Iterable[Moment] = STAGING, reuse_on_disk: bool = False) -> list[HeldTask]:
        """Send tasks for each moment to each app, launched and handed over, and wait until each is held there.

        Args:
            at: the moments, in the order of ``STAGING``.
            reuse_on_disk: the one that is ``ON_DISK`` is a task that was handed over.
        """
        held = []
        for moment in at:
            is_single = moment is Moment.ON_DISK
            for shop in self.shops[:1] if is_single else self.shops:
                for reuse in (reuse_on_disk,) if is_single else (False, True):
                    held.append(self._hold_one(shop, moment, reuse))
        for task in held:
            task.commit()
        return held

    def _hold_one(self, shop: Shop, moment: Moment, reuse: bool) -> HeldTask:
        while True:
            after = self._run_before(shop) if reuse else None
            task = HeldTask(shop, moment, self.dsn, self._holds, after=after)
            self._held.append(task)
            task.wait_held()
            if not reuse or task.was_handed_over():
                return task
            # The background worker had waited for its second and ended. Once more, and this one may end if it can.
            if moment is Moment.ON_DISK:
                # In its commit it would hold up all others that notify: those of the next try, too.
                end_processes(self.dsn, "pg_background", task.task_id)
                eventually("it is gone", partial(_has_no_process, self.dsn, task.task_id))
            task.release()

    def _run_before(self, shop: Shop) -> str:
        """Leave a background worker that a task can be handed over to; returns the id of the task it ran."""
        result = shop.task("statement_reusing").delay("SELECT 1")
        result.get(timeout=WAIT)
        return str(result.id)

    def release(self) -> None:
        """Let all tasks go on."""
        for task in self._held:
            task.release()

    def check(self, held: list[HeldTask]) -> None:
        """Effects once, one outcome, the right result."""
        results = {task.task_id: task.result.get(timeout=WAIT) for task in held}
        assert results == {task.task_id: [{"v": task.task_id}] for task in held}
        once = {task.cell: 1 for task in held}
        effects, outcomes = moments.count_effects(self.dsn), moments.count_outcomes(self.dsn)
        assert {task.cell: effects[task.task_id] for task in held} == once
        assert {task.cell: outcomes[task.task_id] for task in held} == once

    def check_ended(self, held: list[HeldTask]) -> None:
        """A statement that somebody ended has failed without effects; what was on disk by then stands."""
        failed = {}
        for task in held:
            got = task.result.get(timeout=WAIT, propagate=False)
            failed[task.cell] = isinstance(got, (QueryCanceled, AdminShutdown))
            assert failed[task.cell] or got == [{"v": task.task_id}], task.cell
        effects = moments.count_effects(self.dsn)
        assert {task.cell: effects[task.task_id] for task in held} == {cell: int(not f) for cell, f in failed.items()}
        assert [task.cell for task in held if task.moment is Moment.RUNNING and not failed[task.cell]] == []

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
    holds: Path,
) -> Iterator[Stage]:
    """A stage without apps yet."""
    made = Stage(new_server(), fault_shop, holds)
    yield made
    made.release()


def end_processes(dsn: str, backend_type: str, application_name: str) -> int:
    """Terminate processes of the server by their type and name, a regular expression."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = %s AND application_name ~ %s"
    with psycopg.connect(dsn, autocommit=True) as session:
        return len(session.execute(query, [backend_type, application_name]).fetchall())


def _has_no_process(dsn: str, task_id: str) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background' AND application_name ~ %s"
    with psycopg.connect(dsn, autocommit=True) as session:
        return not session.execute(query, [task_id]).fetchall()


#: What ``hold`` is told, round by round.
ROUNDS = [(STAGING, False), ([Moment.ON_DISK], True)]


def test_celery_worker_killed(stage: Stage) -> None:
    stage.open(BROKERS)
    for at, reuse_on_disk in ROUNDS:
        with moments.hold_commits(stage.dsn):
            held = stage.hold(at, reuse_on_disk)
            for shop in {task.shop for task in held}:
                shop.workers[-1].kill()
                stage.launch_worker(shop)
        stage.release()
        stage.check(held)
        launches = moments.count_launches(stage.dsn)
        assert {task.cell: launches[task.task_id] for task in held} == {task.cell: 1 for task in held}
    stage.check_quiet()


@pytest.mark.parametrize("whose", ["launcher", "listener"])
def test_session_lost(stage: Stage, whose: str) -> None:
    stage.open(["redis"])
    # While it launches, a launcher goes by the name of the task.
    name = "^pgbg (?!listener)" if whose == "launcher" else "^pgbg listener"
    for at, reuse_on_disk in ROUNDS:
        with moments.hold_commits(stage.dsn):
            held = stage.hold(at, reuse_on_disk)
            assert end_processes(stage.dsn, "client backend", name) >= 1
        stage.release()
        stage.check(held)
    stage.check_quiet()


def test_background_worker_ended(stage: Stage) -> None:
    stage.open(BROKERS)
    for at, reuse_on_disk in ROUNDS:
        with moments.hold_commits(stage.dsn):
            held = stage.hold([moment for moment in at if moment not in WITHOUT_WORKER], reuse_on_disk)
            for task in reversed(held):
                assert end_processes(stage.dsn, "pg_background", task.task_id) == int(task.has_worker)
            # Those that commit end later. One that runs and hears of it as late would end in its commit, too.
            for task in held:
                if task.moment is Moment.RUNNING:
                    eventually("it is gone", partial(_has_no_process, stage.dsn, task.task_id))
        stage.release()
        stage.check_ended(held)
    stage.check_quiet()


def test_server_restarted_or_killed(stage: Stage) -> None:
    stage.open(BROKERS)
    faults: list[Callable[[], Any]] = [
        lambda: stage.server.restart("fast"),
        lambda: stage.server.restart("immediate"),
        lambda: (stage.server.crash(), stage.server.start()),
    ]
    for number, die in enumerate(faults):
        with moments.hold_commits(stage.dsn):
            held = stage.hold(reuse_on_disk=number % 2 == 0)
            die()
        stage.release()
        stage.check(held)
    stage.check_quiet()
