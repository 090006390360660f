"""What we rely on in pg_background, on the server the tests use."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from celery_pgbg.database.capabilities import detect
from celery_pgbg.execution.launching.launcher import Launcher
from tests.waiting import eventually


@pytest.fixture
def launcher(dsn: str) -> Iterator[Launcher]:
    """A launching session."""
    made = Launcher(lambda: psycopg.connect(dsn, autocommit=True))
    yield made
    made.close()


def launch(launcher: Launcher, statement: str) -> tuple[int, int]:
    """A bare launch, without our functions."""
    name = launcher.capabilities.identifier("launch")
    with launcher._exclusive() as session:
        query = psycopg.sql.SQL("SELECT pid, cookie FROM {}(%s)").format(name)
        row = session.execute(query, [statement]).fetchone()
    assert row is not None
    return row[0], row[1]


def test_a_worker_commits_although_its_launch_rolls_back(dsn: str, table: str, database: psycopg.Connection) -> None:
    with psycopg.connect(dsn) as session:
        name = detect(session).identifier("launch")
        query = psycopg.sql.SQL("SELECT FROM {}(%s)").format(name)
        session.execute(query, [f"INSERT INTO {table} VALUES ('kept')"])
        session.rollback()
    eventually("it is there", lambda: database.execute(f"SELECT v FROM {table}").fetchone() == ("kept",))


def test_a_gate_held_by_the_launch_makes_the_worker_wait(dsn: str, table: str, database: psycopg.Connection) -> None:
    with psycopg.connect(dsn) as session:
        name = detect(session).identifier("launch")
        session.execute("SELECT pg_advisory_xact_lock(4711)")
        query = psycopg.sql.SQL("SELECT pid FROM {}(%s)").format(name)
        work = f"SELECT pg_advisory_xact_lock_shared(4711); INSERT INTO {table} VALUES ('through')"
        row = session.execute(query, [work]).fetchone()
        assert row is not None
        waiting = "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted"
        eventually("it waits", lambda: database.execute(waiting, row).fetchone() == (1,))
        assert database.execute(f"SELECT v FROM {table}").fetchone() is None
        session.commit()
    eventually("it went through", lambda: database.execute(f"SELECT v FROM {table}").fetchone() == ("through",))


def test_a_handle_is_worth_nothing_in_another_session(launcher: Launcher, dsn: str) -> None:
    from celery_pgbg.handles import Attempt, Handle

    handle = Handle(*launch(launcher, "SELECT pg_sleep(60)::text"))
    attempt = Attempt("none")
    other = Launcher(lambda: psycopg.connect(dsn, autocommit=True))
    assert not other.cancel(attempt, handle)
    assert not other.cancel(attempt, Handle(handle.pid, handle.cookie ^ 1))
    assert not launcher.cancel(attempt, Handle(handle.pid, handle.cookie ^ 1))
    other.close()
    eventually("it can be signalled", lambda: launcher.cancel(attempt, handle))
    eventually("stopped", lambda: launcher.states()[handle] == "stopped")
    report = launcher.error_of(handle)
    assert report is not None
    assert report.sqlstate in ("57014", "57P01")


def test_names_of_both_lines_are_found(launcher: Launcher) -> None:
    capabilities = launcher.capabilities
    for function in ("launch", "cancel", "detach", "list", "result"):
        assert capabilities.name(function) is not None
    has_more = tuple(map(int, capabilities.version.split("."))) >= (1, 8)
    for function in ("stats", "get_progress", "report_progress"):
        assert (capabilities.name(function) is not None) is has_more
    older = [function for function in capabilities.functions if function.name.endswith("_v2")]
    if older:
        from dataclasses import replace

        assert replace(capabilities, functions=older).name("launch") == "pg_background_launch_v2"


def test_a_worker_shows_the_name_of_its_launching_moment(launcher: Launcher, database: psycopg.Connection) -> None:
    name = f"named {uuid.uuid4()}"
    with launcher._exclusive() as session, session.transaction():
        session.execute("SELECT set_config('application_name', %s, true)", [name])
        pid, _ = launch(launcher, "SELECT pg_sleep(60)")
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_background' AND application_name = %s"
    eventually("it shows", lambda: database.execute(query, [name]).fetchone() == (pid,))
    database.execute("SELECT pg_terminate_backend(%s)", [pid])


def test_calls_from_many_threads_take_turns(launcher: Launcher) -> None:
    handles: list[tuple[int, int]] = []
    threads = [threading.Thread(target=lambda: handles.append(launch(launcher, "SELECT 1"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({cookie for _, cookie in handles}) == 10
