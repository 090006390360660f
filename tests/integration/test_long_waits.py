"""What an administrator sets or does: limits for idle sessions, REINDEX and VACUUM FULL of our tables."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import schema, sessions
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Returned
from celery_pgbg.settings import read_settings
from tests.effects import held
from tests.fix_runner import in_background, order, run
from tests.fix_server import url_of
from tests.waiting import eventually


def test_sessions_that_wait_are_not_ended_for_being_idle(
    dsn: str, database: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    # Logged once in a process.
    monkeypatch.setattr(sessions, "_logged_idle_limit", [])
    impatient = url_of(dsn, options="-c idle_session_timeout=200ms")
    runner = Runner(impatient, read_settings({"pgbg_dsn": impatient, "pgbg_launchers": 1}))
    try:
        assert isinstance(run(runner, order("SELECT 1")), Returned)
        before = eventually("it listens", lambda: runner.describe()["listener_pid"] and runner.describe())
        with psycopg.connect(impatient, autocommit=True) as witness:
            pid = witness.info.backend_pid
            query = "SELECT FROM pg_stat_activity WHERE pid = %s"
            eventually("an idle session is ended", lambda: not database.execute(query, [pid]).rowcount)
        assert isinstance(run(runner, order("SELECT 1")), Returned)
        after = runner.describe()
    finally:
        runner.close()
    assert [after[name] == before[name] for name in ("listener_pid", "launcher_pids")] == [True, True]
    assert [record.levelname for record in caplog.records if "idle_session_timeout" in record.getMessage()] == ["INFO"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture
def own_database(new_database: Callable[[], str]) -> Iterator[psycopg.Connection[Any]]:
    """A database whose tables of ours may be locked, with a session in it."""
    with psycopg.connect(new_database(), autocommit=True) as session:
        schema.install(session)
        session.execute("CREATE TABLE effects (v text)")
        yield session


@pytest.mark.parametrize("command", ["REINDEX TABLE celery_pgbg.outcome", "VACUUM (FULL) celery_pgbg.outcome"])
def test_maintenance_of_our_tables_costs_no_task_that_reads_them(
    own_database: psycopg.Connection[Any], server_dsn: str, command: str
) -> None:
    """REINDEX waits for the task's lock on the index, and the task for REINDEX's on the table: a deadlock."""
    dsn = url_of(server_dsn, dbname=own_database.info.dbname)
    statement = """
        SET LOCAL enable_seqscan = off;
        SELECT count(*) FROM celery_pgbg.outcome WHERE task_id = 'x';
        INSERT INTO effects VALUES ('x');
        SELECT pg_advisory_xact_lock_shared(4711)
    """
    runner = Runner(dsn, read_settings({"pgbg_dsn": dsn, "pgbg_sweep_interval": 0.2}))
    try:
        with held(own_database, 4711):
            watch, thread, endings = in_background(runner, order(statement, returns="count"))
            query = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted AND locktype = 'advisory' AND objid = 4711"
            eventually("it has read", lambda: watch.pid and own_database.execute(query, [watch.pid]).rowcount)
            # Else either of them may be the one that the server chooses to fail.
            patient = url_of(dsn, options="-c deadlock_timeout=1min")
            with psycopg.connect(patient, autocommit=True) as administrator:
                maintenance = threading.Thread(target=administrator.execute, args=[command.encode()])
                maintenance.start()
                pid = administrator.info.backend_pid
                query = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted"
                eventually("the command waits", lambda: own_database.execute(query, [pid]).rowcount)
                own_database.execute("SELECT pg_advisory_unlock(4711)")
                maintenance.join()
        thread.join()
    finally:
        runner.close()
    assert endings == [Returned(1)]
    assert own_database.execute("SELECT count(*) FROM effects").fetchone() == (1,)
