"""A lost session or an interruption at every round trip of a delivery, from its first to its last."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Cancelled, Detached, Lost, Returned
from celery_pgbg.watch import Interruption, Watch
from tests.effects import effects
from tests.faults.round_trips import Moment, cut, cut_after, round_trips
from tests.fix_runner import is_revoked, order, run
from tests.waiting import eventually

WAYS: dict[str, dict[str, bool]] = {"own": {}, "reuse": {"reuse": True}, "alone": {"atomic": False}}

#: More than any delivery has.
_MOST = 100


def _statement(table: str, mark: str) -> str:
    return f"INSERT INTO {table} VALUES ('{mark}') RETURNING v"


def _assert_empty(runner: Runner) -> None:
    def is_empty() -> bool:
        shown = runner.describe()
        return not (shown["running"] or shown["waiting_for_slot"] or len(runner.watches))

    eventually("the runner is empty", is_empty)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("way", WAYS)
def test_a_lost_session_is_no_failure(
    new_runner: Callable[..., Runner],
    table: str,
    database: Any,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    moment: Moment,
) -> None:
    succeeded = []
    for number in itertools.count(1):
        mark = str(number)
        asked = order(_statement(table, mark), returns="value", **WAYS[way])
        runner = new_runner(pgbg_sweep_interval=0.1)
        with round_trips(monkeypatch, number, moment, cut if moment == "before" else cut_after) as trips:
            thread, endings = trips.deliver(runner, asked, Watch(asked.attempt))
            thread.join(30)
        assert endings, f"it waits for ever, after round trip {number}"
        if endings == [Returned(mark)]:
            succeeded.append(mark)
            assert run(runner, asked) == Returned(mark)
        else:
            # Nobody knows more of a statement that stands alone, once its launch was sent.
            assert way == "alone", (number, endings)
            assert isinstance(endings[0], Lost), (number, endings)
            assert endings[0].effects == "unknown"
            break
        _assert_empty(runner)
        runner.close()
        if not trips.came:
            break
    assert len(succeeded) > (5 if way == "reuse" else 10)
    assert [mark for mark in effects(database, table) if mark in succeeded] == sorted(succeeded), "each ran once"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_redelivery_gets_the_outcome_although_its_session_is_lost(
    new_runner: Callable[..., Runner], table: str, database: Any, monkeypatch: pytest.MonkeyPatch, moment: Moment
) -> None:
    for way, options in WAYS.items():
        asked = order(_statement(table, way), returns="value", **options)
        assert run(new_runner(), asked) == Returned(way)
        for number in itertools.count(1):
            runner = new_runner(pgbg_sweep_interval=0.1)
            with round_trips(monkeypatch, number, moment, cut if moment == "before" else cut_after) as trips:
                thread, endings = trips.deliver(runner, asked, Watch(asked.attempt))
                thread.join(30)
            assert endings == [Returned(way)], (way, number)
            runner.close()
            if not trips.came:
                break
        assert number > 10
    assert effects(database, table) == sorted(WAYS)


@pytest.mark.parametrize("interruption", [Interruption.REVOKE, Interruption.DETACH, Interruption.SHUTDOWN])
@pytest.mark.parametrize("way", WAYS)
def test_an_interruption_ends_the_task_in_one_way(
    new_runner: Callable[..., Runner],
    table: str,
    database: Any,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    interruption: Interruption,
) -> None:
    # A wait for an end that nobody saw takes seconds.
    step = 5 if way == "alone" and interruption is Interruption.DETACH else 2
    for number in range(1, _MOST, step):
        mark = str(number)
        asked = order(_statement(table, mark), returns="value", **WAYS[way])
        watch = Watch(asked.attempt)
        runner = new_runner(pgbg_sweep_interval=0.1)
        with round_trips(monkeypatch, number, "before", partial(_interrupt, watch, interruption)) as trips:
            thread, endings = trips.deliver(runner, asked, watch)
            thread.join(30)
        assert endings, f"it waits for ever, after round trip {number}"
        again = run(runner, asked)
        # Nobody has seen the end of what was left running, or was stopped, outside a transaction.
        is_unseen = way == "alone" and interruption is not Interruption.REVOKE and isinstance(again, Lost)
        match endings[0], interruption:
            case Returned(value), _:
                assert value == mark
                assert again == endings[0], number
            case Cancelled(), Interruption.REVOKE:
                assert is_revoked(again), (number, again)
            case Cancelled(), Interruption.SHUTDOWN:
                assert again == Returned(mark) or is_unseen, (number, again)
            case Detached(), Interruption.DETACH:
                assert again == Returned(mark) or is_unseen, (number, again)
            case ending, _:
                pytest.fail(f"{ending} after {interruption} at round trip {number}")
        left = effects(database, table).count(mark)
        assert left == 1 if isinstance(again, Returned) else is_unseen or left == 0, (number, left)
        _assert_empty(runner)
        runner.close()
        if not trips.came:
            break
    assert number > (5 if way == "reuse" else 10)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("way", WAYS)
def test_a_revoke_is_final_although_a_session_is_lost(
    new_runner: Callable[..., Runner],
    table: str,
    database: Any,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    moment: Moment,
) -> None:
    query = f"DO $$ BEGIN PERFORM pg_sleep(60); INSERT INTO {table} VALUES ('x'); END $$"
    # A wait for an end that nobody saw takes seconds; with both moments each kind of round trip comes.
    first, step = (1 if moment == "before" else 2, 3) if way == "alone" else (1, 1)
    for number in range(first, _MOST, step):
        asked = order(query, **WAYS[way])
        watch = Watch(asked.attempt)
        runner = new_runner(pgbg_sweep_interval=0.1)
        with round_trips(monkeypatch, number, moment, cut if moment == "before" else cut_after) as trips:
            trips.counts = False
            thread, endings = trips.deliver(runner, asked, watch)
            eventually("it runs", partial(_runs, database, watch))
            trips.counts = True
            watch.interrupt(Interruption.REVOKE)
            thread.join(30)
        assert endings, f"it waits for ever, after round trip {number}"
        assert is_revoked(endings[0]), (number, endings)
        assert is_revoked(run(runner, asked)), number
        assert not _runs(database, watch)
        _assert_empty(runner)
        runner.close()
        if not trips.came:
            break
    assert number > 4
    assert effects(database, table) == []


def _runs(database: Any, watch: Watch) -> bool:
    query = "SELECT FROM celery_pgbg.live_attempts() WHERE task_id = %s AND state = 'running'"
    return watch.pid is not None and database.execute(query, [watch.attempt.task_id]).fetchone() is not None


def _interrupt(watch: Watch, interruption: Interruption, _session: Any) -> None:
    watch.interrupt(interruption)
