"""Many who wait, forks, chords under faults, children, forgetting and cleaning up, with real Celery workers."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chain, chord, group, states
from celery.app.task import Context

from celery_pgbg.database.results import close_stores
from celery_pgbg.execution.runner import Runner
from tests.effects import effects
from tests.fix_celery import Shop
from tests.fix_runner import order, run
from tests.waiting import eventually

WAIT = 60


@pytest.fixture(scope="module", autouse=True)
def _no_session_outlives_the_module() -> Iterator[None]:
    yield
    close_stores()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str) -> Iterator[Shop]:
    """An app whose results are where its SQL tasks run; they expire after an hour."""
    made = Shop(
        tmp_path_factory.mktemp("together"), f"{redis_url}/12", f"pgbg+{dsn}", pgbg_dsn=dsn, result_expires=3600
    )
    made.start_worker("-c32")
    yield made
    made.close()


# --- waiting ---------------------------------------------------------------------------------------


def test_hundreds_wait_at_once_and_are_woken_by_notify(shop: Shop) -> None:
    """Threads that wait for one, and threads that wait for all: of the same tasks, on one listening session."""
    results = [shop.task("sleep").si(0.2 + number % 5 / 10).delay() for number in range(40)]
    got: list[Any] = []

    def wait_for_one(number: int) -> None:
        got.append(shop.app.AsyncResult(results[number % 40].id).get(timeout=WAIT))

    def wait_for_all() -> None:
        mine = shop.app.ResultSet([shop.app.AsyncResult(result.id) for result in results])
        got.extend(mine.join_native(timeout=WAIT))

    threads = [threading.Thread(target=wait_for_one, args=(number,)) for number in range(200)]
    threads += [threading.Thread(target=wait_for_all) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [""] * 400
    notifications = shop.app.backend.store.notifications
    eventually("listening", lambda: notifications.working)
    assert notifications._waiters == {}


def in_fork(work: Callable[[], bool]) -> int:
    """Do work in a child made by a bare ``os.fork``, and return its PID; its exit code tells whether it was true."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    return pid


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forks_of_a_process_that_waits_wait_with_sessions_of_their_own(shop: Shop, database: Any) -> None:
    members = group(shop.task("sleep").si(1.5), shop.task("double").si(2), shop.task("add").si(1)).delay()
    expected = ["", 4, [{"total": 3}]]
    waiting = threading.Thread(target=lambda: members.results[0].get(timeout=WAIT))
    waiting.start()
    notifications = shop.app.backend.store.notifications
    eventually("listening", lambda: notifications.working)

    def join() -> bool:
        mine = shop.app.backend.store.notifications
        return members.join(timeout=WAIT) == expected and mine is not notifications and mine.working

    children = [in_fork(join) for _ in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    waiting.join()
    assert members.get(timeout=WAIT) == expected
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s"
    for child in children:
        gone = f"pgbg results {child}@%"
        eventually("its sessions have ended", lambda: database.execute(query, [gone]).fetchone() == (0,))  # noqa: B023


def test_all_who_wait_survive_the_end_of_all_sessions(shop: Shop, database: Any) -> None:
    results = [shop.task("sleep").si(1.5).delay() for _ in range(20)]
    got: list[Any] = []
    threads = [threading.Thread(target=lambda one=one: got.append(one.get(timeout=WAIT))) for one in results]
    for thread in threads:
        thread.start()
    eventually("listening", lambda: shop.app.backend.store.notifications.working)
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'pgbg %%' AND datname = current_database() AND backend_type = 'client backend'"
    )
    for thread in threads:
        thread.join()
    assert got == [""] * 20


# --- chords and children -----------------------------------------------------------------------------


def test_a_chord_whose_celery_worker_dies_calls_back_once(
    new_shop: Callable[..., Shop], amqp_url: str, dsn: str, table: str, database: Any
) -> None:
    """Members are delivered again, those that were counted too: the callback's effect is there once."""
    shop = new_shop(amqp_url, f"pgbg+{dsn}", pgbg_dsn=dsn)
    worker = shop.start_worker("-c16")
    insert = shop.task("insert")
    header = [insert.si(table, f"member {number:02}", number / 8) for number in range(12)]
    result = chord(header, insert.si(table, "the callback")).delay()
    eventually("some have ended", lambda: len(effects(database, table)) > 4)
    worker.kill()
    shop.start_worker("-c16")
    assert result.get(timeout=WAIT) == 1
    query = "SELECT finished, arrived FROM celery_pgbg.chord WHERE group_id = %s"
    eventually("closed", lambda: database.execute(query, [result.parent.id]).fetchone() == (True, 12))
    assert effects(database, table) == [f"member {number:02}" for number in range(12)] + ["the callback"]


def test_a_chord_of_hundreds_calls_back_once_with_all_values_in_order(shop: Shop) -> None:
    double = shop.task("double")
    header = [double.si(number) if number % 4 else shop.task("add").si(number, 0) for number in range(200)]
    got = chord(header, double.s()).delay().get(timeout=WAIT)
    expected = [number * 2 if number % 4 else [{"total": number}] for number in range(200)]
    assert got == expected * 2


def test_children_of_a_sql_task_are_those_that_it_called(shop: Shop) -> None:
    first = shop.task("add")
    result = chain(first.si(1), group(shop.task("double").si(2), first.si(5))).delay()
    assert result.get(timeout=WAIT) == [4, [{"total": 7}]]
    eventually("stored", lambda: shop.app.AsyncResult(result.parent.id).children)
    again = shop.app.AsyncResult(result.parent.id)
    [members] = again.children
    assert [member.id for member in members] == [member.id for member in result.results]
    assert [value for _, value in again.collect()] == [[{"total": 3}], [4, [{"total": 7}]], 4, [{"total": 7}]]


# --- forgetting and expiry -----------------------------------------------------------------------------


def test_a_result_that_is_forgotten_before_it_is_stored_stays_forgotten(shop: Shop, runner: Runner) -> None:
    """``get`` returns with the commit, a moment before the Celery worker stores its part."""
    task = shop.task("add")
    request = Context(id=str(uuid.uuid4()), task=task.name, retries=0)
    run(runner, order("SELECT 1 AS total", request.id, task_name=task.name))
    result = shop.app.AsyncResult(request.id)
    assert result.get(timeout=WAIT) == [{"total": 1}]
    result.forget()
    shop.app.backend.mark_as_done(request.id, [{"total": 1}], request)
    assert shop.app.AsyncResult(request.id).state == states.PENDING


def test_a_chord_may_be_forgotten_with_its_members(shop: Shop) -> None:
    result = chord([shop.task("add").si(1), shop.task("double").si(1)], shop.task("double").s()).delay()
    assert len(result.get(timeout=WAIT)) == 4
    result.parent.forget()
    result.forget()
    assert [shop.app.AsyncResult(one.id).state for one in (*result.parent.results, result)] == [states.PENDING] * 3


def test_a_celery_worker_cleans_up_what_has_expired(shop: Shop, database: Any) -> None:
    """As ``celery beat`` asks daily for it: results, groups, chords, and the outcomes that only they have kept."""
    old = chord([shop.task("add").si(1), shop.task("double").si(1)], shop.task("double").s()).delay()
    fresh, running_on = shop.task("add").delay(2), shop.task("sleep").delay(3)
    old.parent.save(backend=shop.app.backend)
    for result in (old, fresh):
        result.get(timeout=WAIT)
        eventually("stored", lambda: "children" in shop.app.backend.get_task_meta(result.id, cache=False))  # noqa: B023
    ids = [old.id, *(member.id for member in old.parent.results)]
    aged = "UPDATE celery_pgbg.{} SET stored_at = now() - interval '2 hours' WHERE {} = ANY(%s)"
    database.execute(aged.format("result", "task_id"), [ids])
    for table in ("result_group", "chord"):
        database.execute(aged.format(table, "group_id"), [[old.parent.id]])
    shop.app.tasks["celery.backend_cleanup"].delay().get(timeout=WAIT)
    assert shop.app.AsyncResult(fresh.id).state == states.SUCCESS
    query = "SELECT FROM celery_pgbg.result WHERE task_id = ANY(%s)"
    assert database.execute(query, [ids]).fetchall() == []
    assert shop.app.backend.restore_group(old.parent.id) is None
    assert database.execute("SELECT FROM celery_pgbg.chord WHERE group_id = %s", [old.parent.id]).fetchall() == []
    assert running_on.get(timeout=WAIT) == ""
