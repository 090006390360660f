"""A statement that keeps our tables locked: who stops it must not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Cancelled, Raised, Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Interruption, Watch
from tests.faults.moments import hold_in_gate
from tests.fix_runner import in_background, order, run
from tests.waiting import eventually

TABLES = ("outcome", "execution", "bgworker")


@pytest.fixture
def runner(own_dsn: str) -> Iterator[Runner]:
    """In a database of the test's own: everything in it waits for these locks."""
    made = Runner(own_dsn, read_settings({"pgbg_dsn": own_dsn}))
    yield made
    made.close()


def locking(runner: Runner, dsn: str, table: str, reuse: bool) -> tuple[Watch, threading.Thread, list[Any]]:
    """Run a task that locks a table and sleeps."""
    if reuse:
        # in a background worker that is there
        assert run(runner, order("SELECT 1", returns="value", reuse=True)) == Returned(1)
    asked = order(f"LOCK TABLE celery_pgbg.{table}; SELECT pg_sleep(600)", reuse=reuse)
    started = in_background(runner, asked)
    locked = (
        "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE relation = %s::regclass"
        " AND mode = 'AccessExclusiveLock' AND granted AND wait_event = 'PgSleep'"
    )
    with psycopg.connect(dsn, autocommit=True) as session:
        eventually("it is locked", lambda: session.execute(locked, [f"celery_pgbg.{table}"]).fetchone() is not None)
    return started


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("table", TABLES)
def test_it_is_revoked(runner: Runner, own_dsn: str, table: str, reuse: bool) -> None:
    watch, thread, endings = locking(runner, own_dsn, table, reuse)
    watch.interrupt(Interruption.REVOKE)
    thread.join(30)
    assert len(endings) == 1
    assert isinstance(endings[0], (Cancelled, Raised)), endings


@pytest.mark.parametrize("table", TABLES)
def test_it_is_stopped_from_another_process(runner: Runner, own_dsn: str, table: str) -> None:
    watch, thread, endings = locking(runner, own_dsn, table, reuse=False)
    other = Runner(own_dsn, read_settings({"pgbg_dsn": own_dsn}))
    stopping = threading.Thread(target=lambda: other.stop(watch.attempt, "revoked"), daemon=True)
    stopping.start()
    stopping.join(30)
    thread.join(30)
    assert len(endings) == 1
    assert isinstance(endings[0], (Cancelled, Raised)), endings
    other.close()


def test_another_task_of_the_same_role_is_left_alone(runner: Runner, own_dsn: str) -> None:
    watch, thread, endings = in_background(runner, order("SELECT pg_sleep(600)"))
    eventually("it runs", lambda: watch.pid)
    holds, holding, _ = locking(runner, own_dsn, "outcome", reuse=False)
    watch.interrupt(Interruption.REVOKE)
    thread.join(5)
    assert holding.is_alive()
    holds.interrupt(Interruption.REVOKE)
    for each in (holding, thread):
        each.join(30)
        assert not each.is_alive()
    assert len(endings) == 1


def test_a_task_that_began_before_the_end_of_its_launch_locks_none_of_our_tables(runner: Runner, own_dsn: str) -> None:
    """Else the installation of the next version waits for its end, and all other tasks wait for the installation."""
    asked = order("SELECT pg_advisory_xact_lock(1)")
    waits = "SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background' AND wait_event = %s"
    locked = """
        SELECT relation::regclass::text, mode FROM pg_locks JOIN pg_class AS c ON c.oid = relation
        WHERE pid = %s AND relnamespace = 'celery_pgbg'::regnamespace
    """
    with psycopg.connect(own_dsn) as holder, psycopg.connect(own_dsn, autocommit=True) as session:
        session.execute("SELECT pg_advisory_lock(1)")
        hold_in_gate(holder, asked.attempt.task_id)
        watch, thread, endings = in_background(runner, asked)
        eventually("it waits for the end of its launch", lambda: session.execute(waits, ["PgSleep"]).rowcount)
        holder.rollback()
        eventually("it runs", lambda: watch.pid and session.execute(waits, ["advisory"]).rowcount)
        assert session.execute(locked, [watch.pid]).fetchall() == []
    thread.join(30)
    assert isinstance(endings[0], Returned)
