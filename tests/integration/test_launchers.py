"""How many sessions launch where no setting says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.runner import Runner
from celery_pgbg.execution.strategies.means import MOST_LAUNCHERS, Launchers
from celery_pgbg.outcomes import Cancelled, Returned
from celery_pgbg.watch import Interruption
from tests.fix_runner import in_background, order, run
from tests.waiting import eventually


def opened(runner: Runner) -> int:
    """How many launching sessions there are."""
    return len(runner.describe()["launcher_pids"])


@pytest.mark.parametrize("reuse", [False, True])
def test_two_sessions_are_enough_for_few_statements(runner: Runner, reuse: bool) -> None:
    for _ in range(4):
        assert run(runner, order("SELECT 1", returns="value", reuse=reuse)) == Returned(1)
    assert opened(runner) <= 2
    at_work = [in_background(runner, order("SELECT pg_sleep(600)")) for _ in range(6)]
    eventually("all run", lambda: all(watch.pid for watch, _, _ in at_work))
    assert opened(runner) == 2
    # Each is stopped by the session that has its handle.
    for watch, _, _ in at_work:
        watch.interrupt(Interruption.REVOKE)
    for _, thread, endings in at_work:
        thread.join(30)
        assert endings == [Cancelled()]


def test_a_setting_wins(new_runner: Callable[..., Runner]) -> None:
    runner = new_runner(pgbg_launchers=3)
    for _ in range(6):
        run(runner, order("SELECT 1"))
    assert opened(runner) == 3


def test_many_statements_are_shared_among_more_sessions() -> None:
    counted = [0]

    def not_opened() -> Any:
        raise AssertionError("nothing is launched")

    launchers = Launchers((Launcher(not_opened) for _ in range(MOST_LAUNCHERS)), lambda: counted[0])
    for number, sessions in ((0, 2), (1, 2), (2, 2), (1000, 2), (1001, 3), (4000, 8), (100_000, MOST_LAUNCHERS)):
        counted[0] = number
        assert len(launchers.used()) == sessions
        chosen = set()
        for _ in range(2 * MOST_LAUNCHERS):
            with launchers.least_busy() as launcher:
                chosen.add(id(launcher))
        assert chosen == {id(launcher) for launcher in launchers[:sessions]}
