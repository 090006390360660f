"""Tasks whose result is ignored go by pg_background's submit."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from celery_pgbg.database.launcher import Launcher
from celery_pgbg.database.runner import Runner
from celery_pgbg.orders import Interruption
from celery_pgbg.outcomes import Cancelled, Lost, Returned
from tests.effects import effects, running
from tests.fix_runner import in_background, order, run
from tests.fix_server import missing
from tests.waiting import eventually


@pytest.fixture
def launcher(runner: Runner) -> Launcher:
    """A launching session of a server that can submit and tell errors without a result."""
    launcher = runner.launchers[0]
    if launcher.capabilities.name("error_info") is None:
        missing("pg_background is older than 1.9: all goes by launch")
    return launcher


def handle_of(launcher: Launcher, ignore_result: bool) -> Any:
    handle = launcher.launch(order("SELECT 1", ignore_result=ignore_result)).handle
    eventually("stopped", lambda: launcher.states()[handle] == "stopped")
    return handle


def test_only_an_ignored_result_is_submitted(launcher: Launcher) -> None:
    assert launcher.error_of(handle_of(launcher, ignore_result=True)) is None
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="submit"):
        launcher._about("consume_result", "result", handle_of(launcher, ignore_result=True))
    assert launcher._about("consume_result", "result", handle_of(launcher, ignore_result=False))


def test_a_submitted_statement_has_its_outcome(runner: Runner, launcher: Launcher, table: str, database: Any) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x') RETURNING v", returns="value", ignore_result=True)
    assert [run(runner, asked), run(runner, asked)] == [Returned("x"), Returned("x")]
    assert effects(database, table) == ["x"]


def test_a_submitted_statement_is_cancelled_and_its_loss_is_told(
    runner: Runner, launcher: Launcher, database: Any
) -> None:
    sleeping = [order("SELECT pg_sleep(60)", ignore_result=True) for _ in range(2)]
    (cancelled, first, first_endings), (lost, second, second_endings) = (in_background(runner, o) for o in sleeping)
    eventually("both run", lambda: cancelled.pid and lost.pid and running(database, lost.attempt.task_id))
    cancelled.interrupt(Interruption.REVOKE)
    database.execute("SELECT pg_terminate_backend(%s)", [lost.pid])
    for thread in (first, second):
        thread.join(60)
    assert first_endings == [Cancelled()]
    assert isinstance(second_endings[0], Lost)
    assert "from outside" in second_endings[0].reason
