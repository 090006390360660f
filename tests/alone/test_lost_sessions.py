"""The session of a statement that stands alone is lost at moments when a new session would not know enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from celery_pgbg.execution.alone.launcher import StandaloneLauncher
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import UNSEEN, Lost, Returned
from tests.effects import effects
from tests.faults.round_trips import cut
from tests.fix_runner import in_background, order, run


@pytest.fixture
def lose_session_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Cut the connection of each launching session when it first comes to one of its methods."""

    def lose(name: str) -> None:
        method = getattr(StandaloneLauncher, name)
        lost: list[StandaloneLauncher] = []

        def cut_off(launcher: StandaloneLauncher, *args: Any) -> Any:
            if launcher not in lost:
                lost.append(launcher)
                with launcher._exclusive() as session:
                    cut(session)
            return method(launcher, *args)

        monkeypatch.setattr(StandaloneLauncher, name, cut_off)

    return lose


def test_a_session_lost_while_progress_is_read_is_no_failure(
    runner: Runner, table: str, database: Any, lose_session_in: Callable[[str], None]
) -> None:
    asked = order(f"INSERT INTO {table} SELECT 'x' FROM pg_sleep(4)", atomic=False)
    lose_session_in("look_at_progress")
    _, thread, endings = in_background(runner, asked)
    thread.join(30)
    assert endings == [Lost(UNSEEN, "unknown")]
    assert effects(database, table) == ["x"], "it was waited for"


@pytest.mark.parametrize("step", ["store", "stored_outcome", "left_invalid"])
def test_an_end_that_was_seen_is_not_forgotten(
    runner: Runner, table: str, database: Any, lose_session_in: Callable[[str], None], step: str
) -> None:
    # Before and after the end.
    database.execute(f"INSERT INTO {table} VALUES ('x'), ('x')")
    statement = f"CREATE UNIQUE INDEX CONCURRENTLY ON {table} (v)" if step == "left_invalid" else f"ANALYZE {table}"
    asked = order(statement, atomic=False)
    lose_session_in(step)
    ending = run(runner, asked)
    if step == "left_invalid":
        assert ending.report.sqlstate == "23505", ending
    else:
        assert ending == Returned("ANALYZE")
    again = run(runner, asked)
    assert again == ending or again.report.sqlstate == ending.report.sqlstate
