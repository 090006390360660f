"""Background workers that are ended again and again, and an extension that goes and comes under a Celery worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import AdminShutdown, QueryCanceled

from celery_pgbg.database import schema
from celery_pgbg.devserver import DevServer
from celery_pgbg.errors import ExtensionMissing, LostTooOften
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Cancelled, Lost
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Interruption
from tests.effects import effects, running
from tests.faults.conftest import ALONE
from tests.faults.held import Held
from tests.faults.moments import count_launches, prepare
from tests.fix_celery import Shop
from tests.fix_runner import in_background, order
from tests.waiting import eventually

WAIT = 60


@pytest.fixture
def own_dsn(own_dsn: str) -> str:
    """A database of the test's own, with our schema and a table of effects."""
    with psycopg.connect(own_dsn, autocommit=True) as session:
        session.execute("CREATE TABLE effects (v text)")
    return own_dsn


def end_each_worker(database: Any, task_id: str, result: Any, end: Callable[[int], Any]) -> None:
    """End background workers of a task as they come, until it has a result."""
    ended: set[int] = set()

    def next_one() -> bool:
        for pid in set(running(database, task_id)) - ended:
            # It may show itself before its record does.
            if end(pid):
                ended.add(pid)
        return bool(result.ready())

    eventually("it has a result", next_one)


def test_a_statement_whose_worker_is_always_ended_fails_at_last(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any
) -> None:
    shop = fault_shop("amqp", dsn)
    shop.start_worker(*ALONE, pgbg_max_launches=2, pgbg_sweep_interval=0.2)
    # as a crash does it, with the session that would hear of it
    end = (
        "SELECT pg_terminate_backend(launcher_pid, 10000), pg_terminate_backend(pid)"
        " FROM celery_pgbg.execution WHERE pid = %s AND task_id = %s"
    )
    for held in (Held(shop, table, database), handed_over(shop, table, database)):
        end_each_worker(
            database,
            held.result.id,
            held.result,
            lambda pid, held=held: database.execute(end, [pid, held.result.id]).rowcount,
        )
        with pytest.raises(LostTooOften, match="launched 2 times"):
            held.result.get(timeout=WAIT)
        held.release()
        assert count_launches(dsn)[held.result.id] == 2
    assert effects(database, table) == []


def handed_over(shop: Shop, table: str, database: Any) -> Held:
    """A held task in a background worker that has run another task. Told again where that one had ended in between."""
    while True:
        pid = shop.task("statement_reusing").delay("SELECT pg_backend_pid() AS pid").get(timeout=WAIT)[0]["pid"]
        held = Held(shop, table, database, "statement_reusing")
        if held.pid == pid:
            return held
        held.release()
        held.result.get(timeout=WAIT)
        database.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table)))


def test_a_statement_that_crashes_the_server_does_so_no_more_than_allowed(
    fault_shop: Callable[..., Shop], new_server: Callable[..., DevServer]
) -> None:
    server_dsn = str(new_server().dsn)
    prepare(server_dsn)
    shop = fault_shop("redis", server_dsn)
    shop.start_worker(*ALONE, pgbg_max_launches=2, pgbg_sweep_interval=0.2)
    sent = [shop.task(name).delay("SELECT pg_sleep(600)") for name in ("statement", "statement_reusing")]
    crashes = 0

    def crashed() -> bool:
        nonlocal crashes
        try:
            with psycopg.connect(server_dsn, autocommit=True) as session:
                left = [result for result in sent if not result.ready()]
                if left and all(running(session, result.id) for result in left):
                    os.kill(running(session, left[crashes % len(left)].id)[0], signal.SIGKILL)
                    crashes += 1
                    # Its session ends with all others.
                    eventually("the server restarts", lambda: _is_gone(session))
        except psycopg.OperationalError:
            pass
        return all(result.ready() for result in sent)

    eventually("both have a result", crashed)
    for result in sent:
        with pytest.raises(LostTooOften, match="launched 2 times"):
            result.get(timeout=WAIT)
    assert crashes == 2
    assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]


def _is_gone(session: psycopg.Connection[Any]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def test_the_extension_is_dropped_and_made_again_under_a_celery_worker(
    fault_shop: Callable[..., Shop], own_dsn: str
) -> None:
    shop = fault_shop("amqp", own_dsn)
    shop.start_worker(*ALONE)
    with psycopg.connect(own_dsn, autocommit=True) as session:
        held = Held(shop, "effects", session)
        ended = Held(shop, "effects", session)
        session.execute("DROP EXTENSION pg_background")
        with pytest.raises(ExtensionMissing):
            shop.task("add").delay(1).get(timeout=WAIT)
        version = "SELECT default_version FROM pg_available_extensions WHERE name = 'pg_background'"
        [number] = session.execute(version).fetchone() or ()
        # The script of 1.8 names its own objects in public.
        place = "public" if str(number).startswith("1.") else "elsewhere"
        session.execute(f"CREATE SCHEMA IF NOT EXISTS {place}; CREATE EXTENSION pg_background SCHEMA {place}")
        assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]
        session.execute("SELECT pg_terminate_backend(%s)", [ended.pid])
        with pytest.raises((QueryCanceled, AdminShutdown)):
            ended.result.get(timeout=WAIT)
        for task in (held, ended):
            task.release()
        assert held.result.get(timeout=WAIT) == [{"v": "done"}]
        assert effects(session, "effects") == ["x"]


def test_our_schema_is_dropped_and_made_again_under_a_celery_worker(
    fault_shop: Callable[..., Shop], own_dsn: str
) -> None:
    shop = fault_shop("amqp", own_dsn)
    shop.start_worker(*ALONE)
    with psycopg.connect(own_dsn, autocommit=True) as session:
        held = Held(shop, "effects", session)
        session.execute("DROP SCHEMA celery_pgbg CASCADE")
        schema.install(session)
        held.release()
        assert held.result.get(timeout=WAIT) == [{"v": "done"}]
        assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]
        assert effects(session, "effects") == ["x"]


@pytest.mark.parametrize("again", [True, False])
def test_a_revoke_without_the_extension_waits_for_it_or_for_the_end(own_dsn: str, again: bool) -> None:
    runner = Runner(own_dsn, read_settings({}))
    asked = order("SELECT pg_sleep(60)")
    watch, thread, endings = in_background(runner, asked)
    with psycopg.connect(own_dsn, autocommit=True) as session:
        eventually("it runs", lambda: running(session, asked.attempt.task_id) and watch.pid)
        session.execute("DROP EXTENSION pg_background")
        if not again:
            session.execute("DROP SCHEMA celery_pgbg CASCADE")
        watch.interrupt(Interruption.REVOKE)
        if again:
            session.execute("CREATE EXTENSION pg_background")
        else:
            session.execute("SELECT pg_terminate_backend(%s)", [watch.pid])
        thread.join(WAIT)
        assert [type(ending) for ending in endings] == [Cancelled if again else Lost]
        assert running(session, asked.attempt.task_id) == []
    runner.close()
