"""The runners of a process: closed and made anew, also while one is at work."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from celery_pgbg.configuration import read_settings_again, settings_of
from celery_pgbg.runners import (
    borrowed_runner,
    close_runners,
    name_this_worker,
    runner_of,
    runners,
    unname_this_worker,
)
from tests.apps import parity
from tests.fix_runner import order, run
from tests.waiting import eventually


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    """An app without a Celery worker."""
    made = parity.make_app("memory://", "cache+memory://", "unused", pgbg_dsn=dsn)
    yield made
    close_runners()
    made.close()


def sessions(database: Any, pids: list[int | None]) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s) AND application_name LIKE 'pgbg %%'"
    return int(database.execute(query, [pids]).fetchone()[0])


def test_a_runner_that_is_at_work_closes_when_its_work_is_done(app: Celery, database: Any) -> None:
    key = uuid.uuid4().int % 2**60
    database.execute("SELECT pg_advisory_lock(%s)", [key])
    returned: list[Any] = []
    thread = threading.Thread(target=lambda: returned.append(app.tasks["sql.wait_for_lock"](key)))
    thread.start()
    eventually("it runs", lambda: [r for r in runners() if r.describe()["running"]])
    [at_work] = runners()
    pids = [launcher.backend_pid for launcher in at_work.launchers if launcher.backend_pid]

    close_runners()
    assert runners() == []
    assert app.tasks["sql.double"](4) == 8
    assert runners() != [at_work]
    assert sessions(database, pids) == len(pids)
    database.execute("SELECT pg_advisory_unlock(%s)", [key])
    thread.join(60)
    assert returned == [""]
    eventually("its sessions have ended", lambda: sessions(database, pids) == 0)


def test_an_idle_runner_closes_at_once_and_another_is_made(app: Celery, database: Any) -> None:
    with borrowed_runner(app) as runner:
        run(runner, order("SELECT 1"))
    pids = [launcher.backend_pid for launcher in runner.launchers if launcher.backend_pid]
    assert pids
    close_runners()
    close_runners()
    eventually("its sessions have ended", lambda: sessions(database, pids) == 0)
    assert app.tasks["sql.double"](4) == 8


def test_settings_are_read_again_on_demand(app: Celery) -> None:
    assert settings_of(app).launchers is None
    app.conf.pgbg_launchers = 3
    assert settings_of(app).launchers is None
    read_settings_again(app)
    assert len(runner_of(app).launchers) == 3


def test_a_runner_is_known_by_the_celery_worker_it_is_of(app: Celery) -> None:
    ours = runner_of(app)
    name_this_worker("one@test")
    try:
        assert runner_of(app) is not ours
    finally:
        unname_this_worker("one@test")
    assert runner_of(app) is ours
