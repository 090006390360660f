"""Who runs an attempt does not hang on what its statement can change, nor on what others can take."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from celery_pgbg.database import schema
from celery_pgbg.execution.control.operations import cancel_by_hand, executions
from celery_pgbg.execution.runner import Runner
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Cancelled, Lost, Raised, Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.testing.databases import as_url
from celery_pgbg.watch import Interruption
from tests.apps.shop import make_app
from tests.effects import effects
from tests.fix_runner import in_background, order, run
from tests.waiting import eventually

#: Ways in which statements change their name.
_RENAMED = [
    "SET application_name = 'etl'",
    "SET LOCAL application_name = 'etl'",
    "SELECT set_config('application_name', 'etl', false)",
    "RESET ALL",
]

#: A place where a statement of a test stands.
_SLEEPS = "SELECT pid FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"


def sleeping(database: Any, watch: Any) -> bool:
    """Whether a statement has come to where it sleeps."""
    return bool(watch.pid and database.execute(_SLEEPS, [watch.pid]).fetchone())


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("rename", _RENAMED)
def test_a_statement_that_changes_its_name_is_attached_to_and_stopped(
    new_runner: Callable[..., Runner], table: str, database: Any, rename: str, reuse: bool
) -> None:
    ours, theirs = new_runner(), new_runner()
    asked = order(f"{rename}; INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(60)", reuse=reuse)
    watch, thread, endings = in_background(ours, asked)
    eventually("it sleeps", lambda: sleeping(database, watch))
    database.execute("UPDATE celery_pgbg.execution SET launched_at = now() - interval '1 hour'")
    again, second, second_endings = in_background(theirs, asked)
    eventually("the other delivery knows it", lambda: again.pid)
    assert again.pid == watch.pid
    [shown] = [row for row in executions(database, 0) if row["task_id"] == asked.attempt.task_id]
    assert (shown["state"], shown["launches"]) == ("running", 1)
    assert theirs.stop(asked.attempt, "revoked") == "stopped"
    for one in (thread, second):
        one.join(60)
    for [ending] in (endings, second_endings):
        assert isinstance(ending, Raised)
        assert ending.report.stopped == "revoked"
    eventually("it is gone", lambda: not sleeping(database, watch))
    assert effects(database, table) == []


@pytest.fixture
def renaming(database: Any) -> Iterator[str]:
    """A procedure that commits, changes its name, and sleeps."""
    name = f"renaming_{uuid.uuid4().hex[:12]}"
    database.execute(
        f"CREATE PROCEDURE {name}(seconds float) LANGUAGE plpgsql AS $$ BEGIN COMMIT;"
        " PERFORM set_config('application_name', 'etl', false); COMMIT; PERFORM pg_sleep(seconds); END $$"
    )
    yield name
    database.execute(f"DROP PROCEDURE {name}")


def test_what_stands_alone_and_changes_its_name_can_be_stopped(
    new_runner: Callable[..., Runner], renaming: str, database: Any
) -> None:
    """By who waits for it, by a copy of its message, and by hand."""
    ours, theirs = new_runner(), new_runner()
    copies: list[threading.Thread] = []

    def revoke(watch: Any, _asked: Order) -> None:
        watch.interrupt(Interruption.REVOKE)

    def revoke_copy(_watch: Any, asked: Order) -> None:
        copy, waiting, _ = in_background(theirs, asked)
        copies.append(waiting)
        eventually("the copy knows it", lambda: copy.pid)
        copy.interrupt(Interruption.REVOKE)

    def by_hand(_watch: Any, asked: Order) -> None:
        assert cancel_by_hand(database, asked.attempt.task_id) == [False]

    for stop, expected in ((revoke, Cancelled), (revoke_copy, Raised), (by_hand, Lost)):
        asked = order(f"CALL {renaming}(60)", atomic=False)
        watch, thread, endings = in_background(ours, asked)
        eventually("it sleeps", lambda watch=watch: sleeping(database, watch))
        stop(watch, asked)
        thread.join(30)
        assert [type(ending) for ending in endings] == [expected], stop
        assert not sleeping(database, watch)
    for waiting in copies:
        waiting.join(60)


def test_a_stop_stays_in_its_database(
    new_database: Callable[[], str], new_runner: Callable[..., Runner], database: Any
) -> None:
    """Though role, task and attempt are the same in another."""
    other_dsn = new_database()
    task_id = str(uuid.uuid4())
    with psycopg.connect(other_dsn, autocommit=True) as other:
        schema.install(other)
        elsewhere = Runner(other_dsn, read_settings({"pgbg_dsn": other_dsn}))
        for atomic in (True, False):
            query = "SELECT pg_sleep(60)" if atomic else "DO $$ BEGIN PERFORM pg_sleep(60); END $$"
            asked = order(query, f"{task_id}-{atomic}", atomic=atomic)
            here, first, _ = in_background(new_runner(), asked)
            there, second, _ = in_background(elsewhere, asked)
            for watch in (here, there):
                eventually("both sleep", lambda watch=watch: sleeping(database, watch))
            assert cancel_by_hand(database, asked.attempt.task_id) == [atomic]
            first.join(60)
            assert sleeping(database, there)
            there.interrupt(Interruption.REVOKE)
            second.join(60)
        elsewhere.close()


def test_one_that_a_role_may_not_see_is_not_launched_again(dsn: str, database: Any, table: str) -> None:
    """Its start and its type are hidden from other roles: that is no sign that it has gone."""
    role = f"pgbg_test_{uuid.uuid4().hex[:12]}"
    database.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    schema.install(database, [role], share_with=database.info.user)
    ours, theirs = (Runner(found, read_settings({"pgbg_dsn": found})) for found in (dsn, as_url(dsn, user=role)))
    try:
        for atomic in (True, False):
            query = f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(60)" if atomic else "VACUUM"
            if not atomic:
                query = "DO $$ BEGIN PERFORM pg_sleep(60); END $$"
            asked = order(query, atomic=atomic)
            watch, thread, _ = in_background(ours, asked)
            eventually("it sleeps", lambda watch=watch: sleeping(database, watch))
            database.execute("UPDATE celery_pgbg.execution SET launched_at = now() - interval '1 hour'")
            with psycopg.connect(as_url(dsn, user=role), autocommit=True) as session:
                query = "SELECT state FROM celery_pgbg.live_attempts() WHERE task_id = %s"
                assert session.execute(query, [asked.attempt.task_id]).fetchone() is not None
            watch.interrupt(Interruption.REVOKE)
            thread.join(60)
    finally:
        for runner in (ours, theirs):
            runner.close()
        database.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def test_a_stranger_who_holds_locks_stalls_no_launch(runner: Runner, dsn: str, database: Any) -> None:
    """Whatever the keys that the next launches may have been thought to take."""
    run(runner, order("SELECT 1"))
    with psycopg.connect(dsn, autocommit=True) as stranger:
        stranger.execute(
            "SELECT pg_advisory_lock(celery_pgbg.lock_key('gate', (pg_current_xact_id()::text::bigint + n)::text))"
            " FROM generate_series(0, 200) AS n"
        )
        for reuse in (False, True):
            assert run(runner, order("SELECT 1", returns="value", reuse=reuse)) == Returned(1)


def test_what_stood_alone_and_lost_its_celery_worker_ends_as_unknown(
    new_runner: Callable[..., Runner], dsn: str, database: Any
) -> None:
    """Once statement and launching session are gone, whoever sweeps says so; the state in our backend follows."""
    asked = order("DO $$ BEGIN PERFORM pg_sleep(6); END $$", atomic=False)
    ours = new_runner()
    watch, thread, _ = in_background(ours, asked)
    eventually("it sleeps", lambda: sleeping(database, watch))
    watch.interrupt(Interruption.DETACH)
    thread.join(60)
    theirs = new_runner(pgbg_sweep_interval=0.2)
    assert run(theirs, order("SELECT 1", returns="value")) == Returned(1)
    app = make_app("memory://", f"pgbg+{dsn}", "unused")
    try:
        result = app.AsyncResult(asked.attempt.task_id)
        assert (result.state, sleeping(database, watch)) == ("PENDING", True)
        eventually("it is settled", lambda: result.state == "FAILURE")
        assert not sleeping(database, watch)
        assert type(result.result).__name__ == "WorkerLostError"
        assert "may have partly completed" in str(result.result)
        ending = run(theirs, asked)
        assert isinstance(ending, Lost)
        assert ending.effects == "unknown"
    finally:
        app.close()


def test_no_copy_is_lost_while_its_first_delivery_waits_for_a_slot(
    new_runner: Callable[..., Runner], database: Any
) -> None:
    """The launching session holds a lock from the record on."""
    asked = order("DO $$ BEGIN PERFORM pg_sleep(0.1); END $$", atomic=False)
    endings: list[Any] = []
    runners = [new_runner() for _ in range(3)]
    threads = [threading.Thread(target=lambda r=r: endings.append(run(r, asked))) for r in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert endings == [Returned("DO")] * 3
    query = "SELECT launches FROM celery_pgbg.execution WHERE task_id = %s"
    assert database.execute(query, [asked.attempt.task_id]).fetchone() == (1,)
