"""Messages written by hand: a wrong field fails its own task, and nothing else."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from celery_pgbg.errors import MessageRefused
from tests.fix_celery import Shop
from tests.waiting import eventually

WAIT = 60


def send(shop: Shop, name: str, *args: Any, **fields: Any) -> str:
    """Send a task with some fields of its message as anybody may write them."""
    task_id = str(uuid.uuid4())
    message = shop.app.amqp.as_task_v2(task_id, f"shop.{name}", args, {})
    with shop.app.producer_or_acquire() as producer:
        headers = {**message.headers, **fields}
        producer.publish(message.body, routing_key=shop.queue, headers=headers, serializer="json", **message.properties)
    return task_id


def assert_all_is_well(shop: Shop) -> None:
    """The Celery worker consumes, and its threads have not failed."""
    assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]
    [worker] = shop.workers
    threads = shop.app.control.inspect([worker.nodename], timeout=10).stats()[worker.nodename]["pool"]["threads"]
    assert {thread["name"] for thread in threads} >= {"pgbg-listener", "pgbg-sweeper"}
    assert [thread for thread in threads if thread["failures"] or not thread["alive"]] == []
    assert "sweep failed" not in worker.text()


@pytest.mark.parametrize(
    "fields",
    [
        {"retries": "7"}, {"retries": 1.5}, {"retries": -1}, {"retries": 2**40}, {"retries": True}, {"retries": [1]},
        {"timelimit": ["a", "b"]}, {"timelimit": [1]}, {"timelimit": 5}, {"timelimit": [-1, None]},
        {"timelimit": [float("inf"), None]}, {"timelimit": {"a": 1}}, {"group_index": "x"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", ["add", "sleep"])
def test_a_wrong_field_fails_its_own_task(shop: Shop, name: str, fields: dict[str, Any]) -> None:
    result = shop.app.AsyncResult(send(shop, name, 1, **fields))
    [field] = fields
    with pytest.raises(MessageRefused, match=f"{field} must be"):
        result.get(timeout=WAIT)
    assert_all_is_well(shop)


@pytest.mark.parametrize("task_id", [42, None, ["a"], {"a": 1}, ""], ids=str)
def test_a_message_without_a_usable_id_is_rejected(shop: Shop, task_id: Any) -> None:
    before = shop.workers[0].text().count("id must be a string")
    send(shop, "add", 1, id=task_id)
    eventually("it is logged", lambda: shop.workers[0].text().count("id must be a string") > before)
    assert_all_is_well(shop)


@pytest.mark.parametrize("fields", [{"retries": "7"}, {"timelimit": ["a", "b"]}, {"group_index": "x"}], ids=str)
def test_a_python_task_is_as_little_disturbed(shop: Shop, fields: dict[str, Any]) -> None:
    assert shop.app.AsyncResult(send(shop, "double", 2, **fields)).get(timeout=WAIT) == 4
    assert_all_is_well(shop)
