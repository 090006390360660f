"""A success of which Celery has nothing else to say is not stored a second time: its outcome is the result."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import group, states
from celery.app.task import Context
from psycopg.types import json as jsonb

from celery_pgbg.database.results import close_stores
from celery_pgbg.execution.records.expiry import delete_expired
from tests.fix_celery import Shop
from tests.waiting import eventually

WAIT = 60


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str) -> Iterator[Shop]:
    """An app whose SQL tasks run where its results are, with Celery's usual settings."""
    made = Shop(tmp_path_factory.mktemp("outcomes"), f"{redis_url}/12", f"pgbg+{dsn}", pgbg_dsn=dsn)
    made.start_worker("-c8")
    yield made
    made.close()
    close_stores()


def succeeded(shop: Shop, **options: Any) -> Any:
    """A task that has ended, with all that its Celery worker does afterwards."""
    result = shop.task("add").apply_async((1,), **options)
    assert result.get(timeout=WAIT) == [{"total": 3}]
    eventually("its Celery worker is done", lambda: f"[{result.id}] succeeded" in shop.workers[0].text())
    return result


def stored(database: Any, task_id: str) -> list[Any]:
    """States that are stored besides the outcome."""
    query = "SELECT status FROM celery_pgbg.result WHERE task_id = %s AND NOT forgotten"
    return [status for (status,) in database.execute(query, [task_id])]


def test_nothing_is_stored_of_a_success_but_its_outcome(shop: Shop, database: Any) -> None:
    result = succeeded(shop)
    assert stored(database, result.id) == []
    read = shop.app.AsyncResult(result.id)
    assert (read.state, read.result, read.children, read.traceback) == (states.SUCCESS, [{"total": 3}], [], None)
    assert read.date_done is not None


def test_a_members_group_is_known(shop: Shop, database: Any) -> None:
    members = group(shop.task("add").s(number) for number in range(3)).apply_async()
    assert members.get(timeout=WAIT) == [[{"total": 2}], [{"total": 3}], [{"total": 4}]]
    assert [stored(database, member.id) for member in members] == [[], [], []]
    metas = [shop.app.backend.get_task_meta(member.id) for member in members]
    assert [meta["group_id"] for meta in metas] == [members.id] * 3


def test_children_are_stored(shop: Shop, database: Any) -> None:
    result = succeeded(shop, link=shop.task("add").si(5))
    assert stored(database, result.id) == ["SUCCESS"]
    assert len(shop.app.AsyncResult(result.id).children) == 1


@pytest.mark.parametrize("state", [states.FAILURE, states.REVOKED, states.STARTED])
def test_what_comes_late_changes_nothing(shop: Shop, database: Any, state: str) -> None:
    result = succeeded(shop)
    shop.app.backend.store_result(result.id, {"pid": 1} if state == states.STARTED else ValueError("late"), state)
    assert shop.app.AsyncResult(result.id).state == states.SUCCESS
    # as if it had come before the commit
    database.execute(
        "INSERT INTO celery_pgbg.result (task_id, status, content_type, content_encoding) VALUES (%s, %s, '', '')",
        [result.id, state],
    )
    assert shop.app.AsyncResult(result.id).result == [{"total": 3}]


def test_of_an_earlier_attempt_only_what_has_stayed_is_told(shop: Shop, database: Any) -> None:
    """As in the moment between the commit of a retried statement and what its Celery worker stores then."""
    app, task_id = shop.app, str(uuid.uuid4())
    stored_by = {"task": "shop.add", "args": [1], "kwargs": {}, "delivery_info": {"routing_key": "sql"}}
    first = Context(id=task_id, retries=0, hostname="first", **stored_by)
    second = Context(id=task_id, retries=1, hostname="second", **stored_by)
    copied = jsonb.Jsonb({"task_id": task_id, "attempt": 1, "task_meta": None})
    source = succeeded(shop)
    app.conf.result_extended = True
    try:
        app.backend.store_result(task_id, ValueError("once"), states.RETRY, traceback="of the first", request=first)
        database.execute(
            "INSERT INTO celery_pgbg.outcome SELECT (jsonb_populate_record(o, %s)).* FROM celery_pgbg.outcome AS o "
            "WHERE task_id = %s",
            [copied, source.id],
        )
        read = app.AsyncResult(task_id)
        assert (read.state, read.result, read.traceback, read.retries) == (states.SUCCESS, [{"total": 3}], None, 1)
        assert (read.name, read.queue, read.args, read.worker) == ("shop.add", "sql", [1], None)
        ended = database.execute("SELECT finished_at FROM celery_pgbg.outcome WHERE task_id = %s", [task_id]).fetchone()
        assert read.date_done == ended[0]
        app.backend.store_result(task_id, [{"total": 3}], states.SUCCESS, request=second)
        assert (read.worker, read.children, read.retries) == ("second", [], 1)
    finally:
        app.conf.result_extended = False


def test_it_can_be_forgotten(shop: Shop) -> None:
    result = succeeded(shop)
    result.forget()
    assert shop.app.AsyncResult(result.id).state == states.PENDING


def test_it_is_kept_as_long_as_a_result(shop: Shop, database: Any) -> None:
    young, old, forgotten = succeeded(shop), succeeded(shop), succeeded(shop)
    forgotten.forget()
    ages = {young.id: "2 hours", old.id: "2 days", forgotten.id: "2 hours"}
    for task_id, age in ages.items():
        query = "UPDATE celery_pgbg.outcome SET finished_at = now() - %s::interval WHERE task_id = %s"
        database.execute(query, [age, task_id])
    # what was judged today would not be judged again
    database.execute("DELETE FROM celery_pgbg.expiry_mark")
    assert delete_expired(database, 3600).results >= 1
    query = "SELECT task_id FROM celery_pgbg.outcome WHERE task_id = ANY(%s)"
    assert database.execute(query, [list(ages)]).fetchall() == [(young.id,)]
