"""The names of pg_background 1.x, which 2.0 keeps as aliases: each that we call, called on the real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from celery_pgbg.database import capabilities
from celery_pgbg.database.runner import Runner
from celery_pgbg.orders import Interruption
from celery_pgbg.outcomes import Cancelled, Raised, Returned
from tests.effects import effects, running
from tests.fix_runner import in_background, order, run
from tests.waiting import eventually

#: What 2.0 has no alias for.
_ONLY_NEW = {"report_progress"}


#: What each line lacks of what came later.
_LATER = {"1.9": set(), "1.8": {"error_info"}, "1.7": {"error_info", "stats", "get_progress"}}


@pytest.fixture(params=_LATER)
def older(request: pytest.FixtureRequest, new_runner: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A runner that takes the older of two names, as it must where there is no other, and misses what is missing."""
    names = {word: both[::-1] for word, both in capabilities._NAMES.items()}
    names |= dict.fromkeys(_LATER[request.param], ("not there", "not there"))
    monkeypatch.setattr(capabilities, "_NAMES", names)
    runner = new_runner()
    found = runner.launchers[0].capabilities
    for word, (old, _) in names.items():
        assert found.name(word) == (None if old == "not there" else old) or word in _ONLY_NEW
    return runner


def test_values_errors_and_effects(older: Runner, database: Any, table: str) -> None:
    assert run(older, order("SELECT 1", returns="value")) == Returned(1)
    assert run(older, order("SELECT 1", returns="value", ignore_result=True)) == Returned(1)
    assert run(older, order("SELECT 2", returns="value", reuse=True)) == Returned(2)
    failed = run(older, order("SELECT 1 / 0"))
    assert isinstance(failed, Raised)
    assert failed.report.sqlstate == "22012"
    assert run(older, order(f"INSERT INTO {table} VALUES ('x')")) == Returned(1)
    assert effects(database, table) == ["x"]


def test_cancels_lists_and_detaches(older: Runner, database: Any) -> None:
    asked = order("SELECT pg_sleep(60)")
    watch, thread, endings = in_background(older, asked)
    eventually("it runs", lambda: running(database, asked.attempt.task_id))
    assert "running" in {state for launcher in older.launchers for state in launcher.states().values()}
    watch.interrupt(Interruption.REVOKE)
    thread.join(60)
    assert endings == [Cancelled()]
    for launcher in older.launchers:
        launcher.flush()
        assert launcher.states() == {}


def test_progress_and_counters(older: Runner, database: Any) -> None:
    if older.launchers[0].capabilities.name("stats") is None:
        assert older.launchers[0].stats() == {}
        return
    asked = order("SELECT celery_pgbg.report_progress(40, 'loading'), pg_sleep(60)")
    watch, thread, _ = in_background(older, asked)
    query = "SELECT progress_percent FROM celery_pgbg.execution WHERE task_id = %s"
    eventually("progress", lambda: database.execute(query, [asked.attempt.task_id]).fetchone() == (40,))
    watch.interrupt(Interruption.REVOKE)
    thread.join(60)
    assert sum(launcher.stats()["workers_launched"] for launcher in older.launchers) >= 1


def test_what_stands_alone(older: Runner, table: str) -> None:
    assert run(older, order("VACUUM", atomic=False)) == Returned("VACUUM")
    failed = run(older, order(f"VACUUM {table}_not_there", atomic=False))
    assert isinstance(failed, Raised)
    assert failed.report.sqlstate == "42P01"


def test_an_error_at_commit(older: Runner, database: Any, table: str) -> None:
    """Which no outcome tells, so that it is read from the handle."""
    serializable = {"default_transaction_isolation": "serializable"}
    query = f"SELECT count(*) FROM {table}; SELECT pg_sleep(0.7); INSERT INTO {table} VALUES ('x')"
    started = [in_background(older, order(query, settings=serializable)) for _ in range(2)]
    for _, thread, _ in started:
        thread.join(60)
    endings = [ending for _, _, [ending] in started]
    [failed] = [ending.report for ending in endings if isinstance(ending, Raised)]
    assert failed.sqlstate == "40001"
    assert effects(database, table) == ["x"]
